"""Users and service principals: each has a role in Postgres, and tokens or a secret in the workspace."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from ..errors import LocalLakebaseError
from ..postgres import check_role_name

if TYPE_CHECKING:
    from ..postgres import Roles
    from .identities import Identities
    from .issuer import Issuer

__all__ = ["Users"]


class Users:
    """
    Adds and removes users, and knows their tokens. Callable from any thread.

    Args:
        roles: Makes their roles.
        issuer: Issues and checks their tokens.
        identities: Remembers the tokens for the next run; those of an earlier run are valid from now on.
    """

    def __init__(self, roles: Roles, issuer: Issuer, identities: Identities) -> None:
        self._roles = roles
        self._issuer = issuer
        self._identities = identities
        for name, token in identities.tokens.items():
            issuer.add(name, is_service=name in identities.secrets)
            issuer.accept_workspace_token(name, token)
        for name, secret in identities.secrets.items():
            issuer.accept_secret(name, secret)

    @property
    def app(self) -> str:
        """The client id of the app's service principal."""
        return self._identities.app

    @property
    def app_secret(self) -> str:
        """The OAuth secret of the app's service principal; empty once it is revoked."""
        return self._identities.secrets.get(self.app, "")

    def ensure_admin(self, name: str) -> None:
        """Give the admin, whose role exists, a workspace token, if it has none."""
        if name not in self._identities.tokens:
            self._issuer.add(name)
            self._identities.tokens[name] = self._issuer.workspace_token(name)
            self._identities.save()

    def ensure_app(self) -> None:
        """Make the app's service principal, if there is none."""
        if not self._identities.app:
            self._identities.app, _ = self.add_service_principal(str(uuid.uuid4()))
            self._roles.grant_creation(self._identities.app)
            self._identities.save()

    def add(self, name: str) -> str:
        """A new workspace token of that user, who is made if missing; earlier tokens stay valid."""
        check_role_name(name)
        self._roles.ensure_identity(name, "user")
        self._issuer.add(name)
        token = self._identities.tokens[name] = self._issuer.workspace_token(name)
        self._identities.save()
        return token

    def forwarded_token(self, name: str, scopes: frozenset[str]) -> str:
        """A token of that user, who is made if missing, as an app gets it; later runs do not know it."""
        if name not in self._identities.tokens:
            self.add(name)
        return self._issuer.forwarded_token(name, scopes)

    def add_service_principal(self, name: str) -> tuple[str, str]:
        """The client id and the OAuth secret of a service principal, which is made if missing."""
        check_role_name(name)
        self._roles.ensure_identity(name, "service_principal")
        self._issuer.add(name, is_service=True)
        self._identities.tokens[name] = self._issuer.workspace_token(name)
        secret = self._identities.secrets[name] = self._issuer.client_secret(name)
        self._identities.save()
        return name, secret

    def add_password_role(self, name: str, password: str) -> None:
        """Make a role with a native password, or change its password. It is no user of the workspace."""
        check_role_name(name)
        if not isinstance(password, str) or not password or "\0" in password:
            raise LocalLakebaseError(f"the password of {name!r} must be text, and not empty")
        self._roles.ensure_password_role(name, password)

    def revoke(self, name: str) -> None:
        """Make all tokens, secrets and credentials of a user invalid."""
        self._issuer.revoke(name)
        self._identities.tokens.pop(name, None)
        self._identities.secrets.pop(name, None)
        self._identities.save()

    def token(self, name: str) -> str:
        """The user's latest workspace token."""
        tokens = self._identities.tokens
        try:
            return tokens[name]
        except KeyError:
            known = ", ".join(sorted(tokens))
            raise LocalLakebaseError(f"no user {name!r} in this workspace ({known}): call add_user({name!r})") from None

    def mint(self, name: str, lifetime: float | None) -> str:
        """A database credential of a user."""
        self.token(name)
        return self._issuer.mint(name, lifetime=lifetime).token
