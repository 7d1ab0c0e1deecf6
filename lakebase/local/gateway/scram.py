"""Comparing clear-text passwords with SCRAM verifiers, as Postgres stores them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

__all__ = ["PasswordCheck"]

_MOST_REMEMBERED = 256


class PasswordCheck:
    """
    Compares passwords with verifiers from `pg_authid`.

    By the design of SCRAM a comparison takes a millisecond or two. So pairs that
    matched are remembered, as digests under a key of this process.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._matched: dict[bytes, None] = {}

    def matches(self, verifier: str, password: str) -> bool:
        """Whether the verifier is that of the password. A verifier of another kind (`md5…`) matches nothing."""
        pair = hmac.digest(self._key, f"{verifier}\0{password}".encode(), "sha256")
        if pair in self._matched:
            return True
        if not _is_derived(verifier, password):
            return False
        if len(self._matched) >= _MOST_REMEMBERED:
            self._matched.clear()
        self._matched[pair] = None
        return True


def _is_derived(verifier: str, password: str) -> bool:
    # SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
    # https://www.postgresql.org/docs/current/catalog-pg-authid.html
    try:
        scheme, parameters, keys = verifier.split("$")
        iterations, salt = parameters.split(":")
        stored = base64.b64decode(keys.partition(":")[0])
    except ValueError:
        return False
    if scheme != "SCRAM-SHA-256":
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored)
