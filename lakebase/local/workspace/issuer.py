"""Workspace tokens, the database credentials minted with them, and the secrets of service principals."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pooling.locks import make_lock

__all__ = ["Credential", "Issuer", "Principal"]

# About as long as a real one, so that software that truncates long passwords fails in a test.
_TOKEN_LENGTH = 1100


@dataclass(frozen=True, slots=True)
class Principal:
    """
    A user or service principal of the workspace; `name` is also the Postgres role.

    Attributes:
        name: An e-mail address, or a client id.
        id: A number.
        is_service: Whether it is a service principal.
        scopes: What the token allows that was shown; `None` for everything.
    """

    name: str
    id: str
    is_service: bool = False
    scopes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A minted database credential: valid as the password of one role until `expires_at` (Unix time)."""

    token: str
    user: str
    expires_at: float

    def __repr__(self) -> str:
        return f"<Credential of {self.user!r}>"


class Issuer:
    """
    Issues tokens and says to which principal a token belongs.

    Pure bookkeeping behind a lock; callable from any thread. It stores digests
    alone, so no dump of this object shows a token.

    Args:
        lifetime: Seconds for which a credential is valid, unless the request for it names another time.
        clock: Unix time.
    """

    def __init__(self, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._lock = make_lock()
        self._key = secrets.token_bytes(32)
        self._principals: dict[str, Principal] = {}
        self._workspace: dict[bytes, tuple[str, float, frozenset[str] | None]] = {}
        self._secrets: dict[str, bytes] = {}
        self._credentials: dict[str, dict[bytes, float]] = {}
        self._minted: dict[str, int] = {}

    # Principals and their workspace tokens

    def add(self, name: str, *, is_service: bool = False) -> Principal:
        """The principal of that name, which is made if there is none."""
        with self._lock:
            if name not in self._principals:
                number = str(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))
                self._principals[name] = Principal(name, number, is_service)
            return self._principals[name]

    def workspace_token(self, name: str) -> str:
        """A new personal access token; earlier ones stay valid."""
        token = f"dapi{secrets.token_hex(16)}"
        self.accept_workspace_token(name, token)
        return token

    def accept_workspace_token(self, name: str, token: str) -> None:
        """Accept a token of the principal that was issued in an earlier run."""
        with self._lock:
            self._workspace[_digest(token)] = (name, float("inf"), None)

    def forwarded_token(self, name: str, scopes: frozenset[str]) -> str:
        """A new OAuth token of a user, which expires and allows no more than its scopes."""
        token = self._signed({"sub": name, "scope": " ".join(sorted(scopes))})
        with self._lock:
            self._workspace[_digest(token)] = (name, self._clock() + self._lifetime, scopes)
        return token

    def client_secret(self, name: str) -> str:
        """A new OAuth secret of a service principal, which replaces its former one."""
        secret = f"dose{secrets.token_hex(16)}"
        self.accept_secret(name, secret)
        return secret

    def accept_secret(self, name: str, secret: str) -> None:
        """Accept a secret of the service principal that was issued in an earlier run."""
        with self._lock:
            self._secrets[name] = _digest(secret)

    def access_token(self, client_id: str, client_secret: str) -> tuple[str, float] | None:
        """A workspace token and its lifetime in seconds if the secret is right, else `None`."""
        with self._lock:
            known = self._secrets.get(client_id)
        if known is None or not hmac.compare_digest(known, _digest(client_secret)):
            return None
        token = self._signed({"sub": client_id, "scope": "all-apis"})
        with self._lock:
            self._workspace[_digest(token)] = (client_id, self._clock() + self._lifetime, None)
        return token, self._lifetime

    def principal(self, workspace_token: str) -> Principal | None:
        """The principal of this workspace token; `None` if the token is unknown, expired or revoked."""
        with self._lock:
            name, expires_at, scopes = self._workspace.get(_digest(workspace_token), ("", 0.0, None))
            found = self._principals.get(name) if self._clock() < expires_at else None
            return found if found is None or scopes is None else replace(found, scopes=scopes)

    def is_service(self, name: str) -> bool:
        """Whether there is a service principal of that name."""
        with self._lock:
            return name in self._principals and self._principals[name].is_service

    def revoke(self, name: str) -> None:
        """Make the workspace tokens, the secret and the credentials of the principal invalid."""
        with self._lock:
            self._workspace = {digest: held for digest, held in self._workspace.items() if held[0] != name}
            self._secrets.pop(name, None)
            self._credentials.pop(name, None)

    # Database credentials

    def mint(self, name: str, *, lifetime: float | None = None, claims: Any = None) -> Credential:
        """A new credential; earlier ones stay valid until they expire."""
        now = self._clock()
        expires_at = now + (self._lifetime if lifetime is None else lifetime)
        body = {"sub": name, "iat": int(now), "exp": int(expires_at), "aud": "lakebase", "jti": str(uuid.uuid4())}
        if claims:
            body["authorization_details"] = claims
        token = self._signed(body)
        with self._lock:
            held = self._credentials.setdefault(name, {})
            for digest in [digest for digest, until in held.items() if until <= now]:
                del held[digest]
            held[_digest(token)] = expires_at
            self._minted[name] = self._minted.get(name, 0) + 1
        return Credential(token, name, expires_at)

    def is_valid(self, name: str, password: str) -> bool:
        """Whether the password is a credential of that role, and has not expired."""
        with self._lock:
            return self._clock() < self._credentials.get(name, {}).get(_digest(password), 0.0)

    def expire(self, name: str | None = None) -> None:
        """Let the credentials minted so far expire now, of one principal or of all."""
        with self._lock:
            for held in self._credentials.values() if name is None else [self._credentials.get(name, {})]:
                held.clear()

    def minted(self) -> dict[str, int]:
        """How many credentials were minted, by principal."""
        with self._lock:
            return dict(self._minted)

    def _signed(self, claims: dict[str, Any]) -> str:
        head = _base64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "local"}).encode())
        body = {"iss": "local-lakebase", "nonce": secrets.token_hex(16), **claims}
        missing = _TOKEN_LENGTH - len(head) - 45 - len(_base64(json.dumps(body).encode()))
        body["pad"] = secrets.token_urlsafe(max(0, missing * 9 // 16))
        text = f"{head}.{_base64(json.dumps(body).encode())}"
        return f"{text}.{_base64(hmac.digest(self._key, text.encode(), 'sha256'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
