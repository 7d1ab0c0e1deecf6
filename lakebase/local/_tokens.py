"""Who is who: workspace tokens, the database credentials minted with them, and the secrets of service principals."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Credential", "Issuer", "Principal"]

# A real one is about this long; what cuts long passwords short must show in a test.
_TOKEN_LENGTH = 1100


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or service principal of the workspace; `name` is also the Postgres role."""

    name: str
    id: str
    is_service: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A minted database credential: good as the password of one role until `expires_at` (Unix time)."""

    token: str
    user: str
    expires_at: float

    def __repr__(self) -> str:
        return f"<Credential of {self.user!r}>"


class Issuer:
    """
    Issues tokens and says whose they are.

    Pure bookkeeping behind a lock; callable from any thread. Nothing is stored
    but digests, so no dump of this object shows a token.

    Args:
        lifetime: Seconds for which a credential is good unless it was asked for with a time of its own.
        clock: Unix time.
    """

    def __init__(self, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._principals: dict[str, Principal] = {}
        self._workspace: dict[bytes, tuple[str, float]] = {}
        self._secrets: dict[str, bytes] = {}
        self._credentials: dict[str, dict[bytes, float]] = {}
        self._minted: dict[str, int] = {}

    # Principals and their workspace tokens

    def add(self, name: str, *, is_service: bool = False) -> Principal:
        """The principal of that name, made if there is none."""
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
        """Take a token as the principal's: one that was issued in an earlier run."""
        with self._lock:
            self._workspace[_digest(token)] = (name, float("inf"))

    def client_secret(self, name: str) -> str:
        """A new OAuth secret of a service principal, in place of its former one."""
        secret = f"dose{secrets.token_hex(16)}"
        self.accept_secret(name, secret)
        return secret

    def accept_secret(self, name: str, secret: str) -> None:
        """Take a secret as the service principal's: one that was issued in an earlier run."""
        with self._lock:
            self._secrets[name] = _digest(secret)

    def access_token(self, client_id: str, client_secret: str) -> tuple[str, float] | None:
        """A workspace token and its life in seconds for a service principal that knows its secret, else `None`."""
        with self._lock:
            known = self._secrets.get(client_id)
        if known is None or not hmac.compare_digest(known, _digest(client_secret)):
            return None
        token = self._signed({"sub": client_id, "scope": "all-apis"})
        with self._lock:
            self._workspace[_digest(token)] = (client_id, self._clock() + self._lifetime)
        return token, self._lifetime

    def principal(self, workspace_token: str) -> Principal | None:
        """Whose workspace token it is; `None` for one that is unknown, expired or revoked."""
        with self._lock:
            name, expires_at = self._workspace.get(_digest(workspace_token), ("", 0.0))
            return self._principals.get(name) if self._clock() < expires_at else None

    def revoke(self, name: str) -> None:
        """Forget all that the principal was given: workspace tokens, secret and credentials."""
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

    def is_good(self, name: str, password: str) -> bool:
        """Whether the password is a credential of that very role, and has not expired."""
        with self._lock:
            return self._clock() < self._credentials.get(name, {}).get(_digest(password), 0.0)

    def expire(self, name: str | None = None) -> None:
        """Let the credentials minted so far expire now: of one principal, or of all."""
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
