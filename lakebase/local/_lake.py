"""The door to a local Lakebase."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ._control import DATABASE
from ._fault_methods import FaultMethods
from ._identities import Identities
from ._limits import connection_limit
from ._running import ENDPOINT, INSTANCE, Running, Settings, service_principal_id
from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from types import TracebackType

    from databricks.sdk import WorkspaceClient

    from lakebase.config import LakebasePoolConfig

    from ._scale import WhileWaking
    from ._stats import LocalStats

__all__ = ["LocalLakebase"]


class LocalLakebase(FaultMethods):
    """
    A Lakebase on this machine, for development and tests.

    A real Postgres behind a gateway on loopback that speaks TLS and takes minted
    tokens as passwords, and a workspace API that the unmodified `databricks-sdk`
    mints them with. Nothing starts before `start` or `with`; nothing is left
    behind after `stop`, nor after this process ended in any other way.

    Usable from any thread. Its methods block for milliseconds, `start` for about a second.

    Args:
        data_dir: Where the data and the certificates are kept from one run to the next; `None` keeps nothing.
        port: Of the database; 0 takes a free one.
        max_connections: Direct connections at once, of all roles together.
        token_lifetime: Seconds for which a minted credential is good at login. Lakebase's live an hour.
        pooler: `auto` puts a PgBouncer beside the gateway where one is found; `off`, or its path.
        postgres: `auto`, `embedded`, `system` or `docker`, or the directory of its programs.
        workspace_port: Of the workspace API; 0 takes a free one.
        compute_units: Size of the compute, which then decides `max_connections` as Lakebase does.
        read_only: Whether there is a read-only host too, as with readable secondaries.
        suspend_timeout: Seconds without a statement after which the compute is suspended; `None` for never.
        wake_after: Seconds that it then takes to wake.
        while_waking: What clients meet till then; see `suspend`.

    Raises:
        LocalLakebaseError: From `start`: something it needs is missing, or a port or directory is taken.
    """

    #: The database that Lakebase makes with each project.
    database = DATABASE
    #: A user who owns the database and may create roles: for set-up, migrations and demos.
    admin_user = "admin@lakebase.local"
    #: The endpoint's resource name.
    endpoint = ENDPOINT
    #: The same database as a provisioned instance.
    instance_name = INSTANCE

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        max_connections: int = 100,
        token_lifetime: float = 3600.0,
        pooler: str | os.PathLike[str] = "auto",
        *,
        postgres: str | os.PathLike[str] = "auto",
        workspace_port: int = 0,
        compute_units: float | None = None,
        read_only: bool = False,
        suspend_timeout: float | None = None,
        wake_after: float = 0.3,
        while_waking: WhileWaking = "57P03",
    ) -> None:
        for name, number in (("port", port), ("workspace_port", workspace_port)):
            if not 0 <= number <= 65535:
                raise ValueError(f"{name}={number!r}: expected 0 to 65535")
        if max_connections < 1:
            raise ValueError(f"max_connections={max_connections!r}: expected 1 or more")
        if token_lifetime <= 0:
            raise ValueError(f"token_lifetime={token_lifetime!r}: expected seconds, more than 0")
        if suspend_timeout is not None and suspend_timeout <= 0:
            raise ValueError(f"suspend_timeout={suspend_timeout!r}: expected seconds, more than 0, or None for never")
        self._settings = Settings(
            data_dir=None if data_dir is None else Path(data_dir).absolute(),
            port=port,
            workspace_port=workspace_port,
            max_connections=max_connections if compute_units is None else connection_limit(compute_units),
            compute_units=1.0 if compute_units is None else compute_units,
            token_lifetime=token_lifetime,
            pooler=os.fspath(pooler),
            postgres=os.fspath(postgres),
            read_only=read_only,
            suspend_timeout=suspend_timeout,
            wake_after=wake_after,
            while_waking=while_waking,
            admin=self.admin_user,
        )
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._running: Running | None = None
        self._identities = Identities()

    def __repr__(self) -> str:
        where = f"{self.host}:{self.port}" if self.is_running else "not running"
        return f"<LocalLakebase {where}>"

    # Life

    def start(self) -> Self:
        """
        Run everything. Blocks for about a second; does nothing if it runs.

        Raises:
            LocalLakebaseError: Something it needs is missing or taken. Nothing is left running.
        """
        with self._lock:
            if self._running is None:
                self._process = os.getpid()
                self._running = Running(self._settings)
                try:
                    self._introduce(self._running)
                except BaseException:
                    self._running.stop()
                    self._running = None
                    raise
                atexit.register(self.stop)
        return self

    def _introduce(self, running: Running) -> None:
        known = self._identities = Identities.kept_in(self._settings.data_dir)
        for name, token in known.tokens.items():
            running.issuer.add(name, is_service=name in known.secrets)
            running.issuer.accept_workspace_token(name, token)
        for name, secret in known.secrets.items():
            running.issuer.accept_secret(name, secret)
        if self.admin_user not in known.tokens:
            running.issuer.add(self.admin_user)
            known.tokens[self.admin_user] = running.issuer.workspace_token(self.admin_user)
        if not known.app:
            known.app, _ = self.add_service_principal()
            running.control.grant_creation(known.app)
        known.save()

    def stop(self) -> None:
        """Stop everything and remove what was temporary. Blocks until that is done; does nothing if it does not run."""
        with self._lock:
            running, self._running = self._running, None
            if running is None or os.getpid() != self._process:
                return
            atexit.unregister(self.stop)
            running.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._running is not None and os.getpid() == self._process

    def _require_running(self) -> Running:
        return self._parts

    @property
    def _parts(self) -> Running:
        running = self._running
        if running is None or os.getpid() != self._process:
            raise LocalLakebaseError("the local Lakebase is not running: use it as a context manager, or call start()")
        return running

    # Where it is

    @property
    def host(self) -> str:
        """Of the endpoint. The certificate is also good for `localhost`."""
        return self._parts.hosts["host"]

    @property
    def port(self) -> int:
        """Of the endpoint."""
        return self._parts.port

    @property
    def read_only_host(self) -> str | None:
        """The host for read-only connections, if there is one."""
        address = self._parts.read_only
        return address.host if address is not None else None

    @property
    def read_only_port(self) -> int | None:
        """The port for read-only connections: the endpoint's, except on systems with one loopback address."""
        address = self._parts.read_only
        return address.port if address is not None else None

    @property
    def pooled_host(self) -> str | None:
        """The pooler's host; `None` if there is no pooler."""
        address = self._parts.pooled
        return address.host if address is not None else None

    @property
    def pooled_port(self) -> int | None:
        """The pooler's port: the endpoint's, except on systems with one loopback address; `None` without a pooler."""
        address = self._parts.pooled
        return address.port if address is not None else None

    @property
    def why_no_pooler(self) -> str:
        """Why there is no pooler, and how to get one; empty if there is one."""
        return self._parts.why_no_pooler

    @property
    def ca_file(self) -> Path:
        """The certificate to trust, for `sslmode=verify-full`."""
        return self._parts.ca_file

    @property
    def workspace_url(self) -> str:
        """What `DATABRICKS_HOST` would be."""
        return self._parts.workspace_url

    @property
    def postgres_version(self) -> int:
        """Major version of the server."""
        return self._parts.postgres.version

    @property
    def socket_directory(self) -> Path | None:
        """Where Postgres itself listens, which trusts whoever gets there; `None` for one in a container."""
        address = self._parts.postgres.address
        return Path(address.host) if address.socket_path is not None else None

    def failure(self) -> str | None:
        """What has ended without being asked to; `None` while all is well."""
        return self._parts.failure()

    # Who may use it

    @property
    def admin_token(self) -> str:
        """A workspace token of `admin_user`."""
        return self.token(self.admin_user)

    @property
    def client_id(self) -> str:
        """The app's service principal, which may create schemas and tables; also its role."""
        return self._identities.app

    @property
    def client_secret(self) -> str:
        """The OAuth secret of the app's service principal."""
        return self._identities.secrets.get(self.client_id, "")

    def add_user(self, name: str) -> str:
        """
        A new workspace token of that user, made with a role of the same name where they are missing.

        Earlier tokens stay valid: this is also how a user's token is rotated.
        """
        parts = self._parts
        parts.control.ensure_identity(name)
        parts.issuer.add(name)
        token = self._identities.tokens[name] = parts.issuer.workspace_token(name)
        self._identities.save()
        return token

    def add_service_principal(self, client_id: str | None = None) -> tuple[str, str]:
        """The client id, which is also the role, and OAuth secret of a new service principal."""
        parts = self._parts
        name = client_id or service_principal_id()
        parts.control.ensure_identity(name)
        parts.issuer.add(name, is_service=True)
        self._identities.tokens[name] = parts.issuer.workspace_token(name)
        secret = self._identities.secrets[name] = parts.issuer.client_secret(name)
        self._identities.save()
        return name, secret

    def add_password_role(self, name: str, password: str) -> None:
        """Make a role that logs in with a native password, as the pooler wants; or change its password."""
        self._parts.control.ensure_password_role(name, password)

    def revoke(self, user: str) -> None:
        """Make all workspace tokens, secrets and credentials of a user worthless. Open connections stay."""
        self._parts.issuer.revoke(user)
        self._identities.tokens.pop(user, None)
        self._identities.secrets.pop(user, None)
        self._identities.save()

    def token(self, user: str) -> str:
        """
        The user's latest workspace token.

        Raises:
            LocalLakebaseError: There is no such user.
        """
        self._require_running()
        try:
            return self._identities.tokens[user]
        except KeyError:
            known = ", ".join(sorted(self._identities.tokens))
            raise LocalLakebaseError(f"no user {user!r} in this workspace ({known}): call add_user({user!r})") from None

    def mint(self, user: str, *, lifetime: float | None = None) -> str:
        """A database credential without the workspace API, good for so many seconds (`None`: `token_lifetime`)."""
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
            "workspace_url": self.workspace_url,
            "ssl_mode": "verify-full",
            "ssl_root_cert": str(self.ca_file),
        }
        if "password" not in overrides:
            if not {"token", "workspace_client"} & overrides.keys():
                values["token"] = self.token(name)
            if "instance_name" not in overrides:
                values["endpoint"] = self.endpoint
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
        return self.host, self.port

    def workspace_client(self, user: str | None = None) -> WorkspaceClient:
        """The SDK's client with that user's token, `admin_user`'s if `None`; it gives up retrying after 5 s."""
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.config import Config

        config = Config(
            host=self.workspace_url,
            token=self.token(user or self.admin_user),
            auth_type="pat",
            retry_timeout_seconds=5,
        )
        return WorkspaceClient(config=config)

    def environment(self) -> dict[str, str]:
        """The variables that an app finds on Databricks, as its service principal; with the certificate to trust."""
        return {
            "DATABRICKS_HOST": self.workspace_url,
            "DATABRICKS_CLIENT_ID": self.client_id,
            "DATABRICKS_CLIENT_SECRET": self.client_secret,
            "LAKEBASE_ENDPOINT": self.endpoint,
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.database,
            "PGUSER": self.client_id,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self.ca_file),
        }

    # What happened

    def stats(self) -> LocalStats:
        """Counts of connections, logins, credentials and calls since the start."""
        parts = self._parts

        def counted() -> LocalStats:
            return parts.gateway.counters.snapshot(parts.issuer.minted(), parts.workspace.calls)

        return parts.loop.call(counted)

    def wait_for_connections(self, count: int, user: str | None = None, timeout: float = 10.0) -> None:
        """
        Block until exactly so many connections are open: a role's, or all.

        Raises:
            LocalLakebaseError: They are not within `timeout` seconds.
        """
        parts = self._parts
        counters = parts.gateway.counters

        async def wait() -> None:
            async with asyncio.timeout(timeout):
                await parts.gateway.until(lambda: counters.open_of(user) == count)

        try:
            parts.loop.run(wait())
        except TimeoutError as error:
            raise LocalLakebaseError(
                f"{counters.open_of(user)} connections are open, not {count}, after {timeout:g} s"
            ) from error
