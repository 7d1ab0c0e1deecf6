"""Whether a clear-text password is the one of a SCRAM verifier, as Postgres stores it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

__all__ = ["PasswordCheck"]

_KEPT = 256


class PasswordCheck:
    """
    Compares passwords with verifiers from `pg_authid`.

    A comparison takes a millisecond or two on purpose; pairs found to agree
    are remembered, by digests under a key of this process.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._agreed: dict[bytes, None] = {}

    def agree(self, verifier: str, password: str) -> bool:
        """Whether they belong together. Any other kind of verifier (`md5…`) agrees with nothing."""
        pair = hmac.digest(self._key, f"{verifier}\0{password}".encode(), "sha256")
        if pair in self._agreed:
            return True
        if not _derived(verifier, password):
            return False
        if len(self._agreed) >= _KEPT:
            self._agreed.clear()
        self._agreed[pair] = None
        return True


def _derived(verifier: str, password: str) -> bool:
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
