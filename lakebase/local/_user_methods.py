"""Who may use a local Lakebase, and how they connect."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ._checks import check_new_role, check_seconds
from ._control import DATABASE
from ._running import ENDPOINT, INSTANCE
from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from lakebase.config import LakebasePoolConfig

    from ._running import Running

__all__ = ["UserMethods"]


class UserMethods:
    """Users, service principals and password roles; their tokens, and configurations to connect as them."""

    if TYPE_CHECKING:

        @property
        def _parts(self) -> Running: ...

    #: The database that Lakebase makes with each project.
    database = DATABASE
    #: A user who owns the database and may create roles: for set-up, migrations and demos.
    admin_user = "admin@lakebase.local"
    #: The endpoint's resource name.
    endpoint = ENDPOINT
    #: The same database as a provisioned instance.
    instance_name = INSTANCE

    @property
    def admin_token(self) -> str:
        """A workspace token of `admin_user`."""
        return self.token(self.admin_user)

    @property
    def client_id(self) -> str:
        """The app's service principal, which may create schemas and tables; also its role."""
        return self._parts.identities.app

    @property
    def client_secret(self) -> str:
        """The OAuth secret of the app's service principal."""
        return self._parts.identities.secrets.get(self.client_id, "")

    def add_user(self, name: str) -> str:
        """
        A new workspace token of that user, made with a role of the same name where they are missing.

        Earlier tokens stay valid: this is also how a user's token is rotated.

        Raises:
            LocalLakebaseError: The name cannot be a role's.
        """
        check_new_role(name)
        parts = self._parts
        parts.control.ensure_identity(name)
        parts.issuer.add(name)
        token = self._parts.identities.tokens[name] = parts.issuer.workspace_token(name)
        self._parts.identities.save()
        return token

    def add_service_principal(self, client_id: str | None = None) -> tuple[str, str]:
        """
        The client id, which is also the role, and OAuth secret of a new service principal.

        Raises:
            LocalLakebaseError: The client id cannot be a role's name.
        """
        name = str(uuid.uuid4()) if client_id is None else client_id
        check_new_role(name)
        parts = self._parts
        parts.control.ensure_identity(name)
        parts.issuer.add(name, is_service=True)
        self._parts.identities.tokens[name] = parts.issuer.workspace_token(name)
        secret = self._parts.identities.secrets[name] = parts.issuer.client_secret(name)
        self._parts.identities.save()
        return name, secret

    def add_password_role(self, name: str, password: str) -> None:
        """
        Make a role that logs in with a native password, as the pooler wants; or change its password.

        Raises:
            LocalLakebaseError: The name cannot be a role's, or the password is empty.
        """
        check_new_role(name)
        if not isinstance(password, str) or not password or "\0" in password:
            raise LocalLakebaseError(f"the password of {name!r} must be text, and not empty")
        self._parts.control.ensure_password_role(name, password)

    def revoke(self, user: str) -> None:
        """Make all workspace tokens, secrets and credentials of a user worthless. Open connections stay."""
        self._parts.issuer.revoke(user)
        self._parts.identities.tokens.pop(user, None)
        self._parts.identities.secrets.pop(user, None)
        self._parts.identities.save()

    def token(self, user: str) -> str:
        """
        The user's latest workspace token.

        Raises:
            LocalLakebaseError: There is no such user.
        """
        identities = self._parts.identities
        try:
            return identities.tokens[user]
        except KeyError:
            known = ", ".join(sorted(identities.tokens))
            raise LocalLakebaseError(f"no user {user!r} in this workspace ({known}): call add_user({user!r})") from None

    def mint(self, user: str, *, lifetime: float | None = None) -> str:
        """A database credential without the workspace API, good for so many seconds (`None`: `token_lifetime`)."""
        check_seconds("lifetime", lifetime, none="token_lifetime")
        self.token(user)
        return self._parts.issuer.mint(user, lifetime=lifetime).token

    def expire_tokens(self, user: str | None = None) -> None:
        """Let the credentials minted so far expire now: a user's, or everybody's. Open connections stay."""
        self._parts.issuer.expire(user)

    # How to connect

    def config(self, user: str | None = None, **overrides: Any) -> LakebasePoolConfig:
        """
        A pool's configuration for that user, `admin_user` if `None`; `overrides` are further fields of it.

        Raises:
            LocalLakebaseError: There is no such user, and no `password` among the overrides.
        """
        from lakebase.config import LakebasePoolConfig

        name = user or self.admin_user
        host, port = self._address(pooled=bool(overrides.get("pooled")), read_only=bool(overrides.get("read_only")))
        values: dict[str, Any] = {
            "host": host,
            "port": port,
            "database": self.database,
            "user": name,
            "workspace_url": self._parts.workspace_url,
            "ssl_mode": "verify-full",
            "ssl_root_cert": str(self._parts.ca_file),
        }
        if "password" not in overrides:
            if not {"token", "workspace_client"} & overrides.keys():
                values["token"] = self.token(name)
            if "instance_name" not in overrides:
                values["endpoint"] = self.endpoint
        if overrides.get("pooled") and "host" not in overrides:
            values["endpoint_hosts"] = self._parts.pooled_hosts
        return LakebasePoolConfig(**{**values, **overrides})

    def _address(self, *, pooled: bool, read_only: bool) -> tuple[str, int]:
        parts = self._parts
        if pooled and read_only:
            raise LocalLakebaseError("there is no pooler for read-only connections: choose pooled or read_only")
        if pooled:
            if parts.pooled is None:
                raise LocalLakebaseError(f"there is no pooler: {parts.why_no_pooler}")
            return parts.pooled.host, parts.pooled.port
        if read_only:
            if parts.read_only is None:
                raise LocalLakebaseError("there is no read-only host: start it with LocalLakebase(read_only=True)")
            return parts.read_only.host, parts.read_only.port
        return parts.hosts["host"], parts.port

    def workspace_client(self, user: str | None = None) -> WorkspaceClient:
        """The SDK's client with that user's token, `admin_user`'s if `None`; it gives up retrying after 5 s."""
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.config import Config

        config = Config(
            host=self._parts.workspace_url,
            token=self.token(user or self.admin_user),
            auth_type="pat",
            retry_timeout_seconds=5,
        )
        return WorkspaceClient(config=config)

    def environment(self) -> dict[str, str]:
        """The variables that an app finds on Databricks, as its service principal; with the certificate to trust."""
        return {
            "DATABRICKS_HOST": self._parts.workspace_url,
            "DATABRICKS_CLIENT_ID": self.client_id,
            "DATABRICKS_CLIENT_SECRET": self.client_secret,
            "LAKEBASE_ENDPOINT": self.endpoint,
            "PGHOST": self._parts.hosts["host"],
            "PGPORT": str(self._parts.port),
            "PGDATABASE": self.database,
            "PGUSER": self.client_id,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self._parts.ca_file),
        }
