"""`LocalLakebase`: what a developer or a test starts, asks and breaks. The parts behind it do the work."""

from __future__ import annotations

import asyncio
import atexit
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pooling.locks import make_rlock

from .checks import check_seconds
from .environments import make_environment
from .errors import LocalLakebaseError
from .gateway import check_while_waking
from .postgres import DATABASE
from .running import ADMIN, ENDPOINT, INSTANCE, Running
from .settings import Settings

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import TracebackType

    from databricks.sdk import WorkspaceClient

    from ..config import LakebasePoolConfig
    from .environments import Client
    from .faults import Fault
    from .gateway import State, WhileWaking
    from .stats import LocalStats

__all__ = ["LocalLakebase"]


class LocalLakebase:
    """
    A Lakebase on this machine, for development and tests.

    A real Postgres behind a gateway on loopback that speaks TLS and takes minted
    tokens as passwords, and a workspace API that the unmodified `databricks-sdk`
    mints them with. Nothing starts before `start` or `with`; nothing is left
    behind after `stop`, nor after this process ended in any other way.

    Callable from any thread. Its methods block for milliseconds, `start` for about a second.

    Args:
        data_dir: Where the data and the certificates are kept from one run to the next; `None` keeps nothing.
        port: Of the database; 0 takes a free one.
        max_connections: Direct connections at once, of all roles together.
        token_lifetime: Seconds for which a minted credential is valid at login. Those of Lakebase last an hour.
        pooler: `auto` puts a PgBouncer beside the gateway if one is found; `off`, or its path.
        postgres: `auto`, `embedded`, `system` or `docker`, or the directory of its programs.
        workspace_port: Of the workspace API; 0 takes a free one.
        compute_units: Size of the compute, which then decides `max_connections` as Lakebase does.
        read_only: Whether there is a read-only host too, as with readable secondaries.
        suspend_timeout: Seconds without a statement after which the compute is suspended; `None` for never.
        wake_after: Seconds that it then takes to wake.
        while_waking: What clients meet until then; see `suspend`.

    Raises:
        ValueError: An argument has a value that makes no sense.
        LocalLakebaseError: From `start`: something it needs is missing, or a port or directory is taken.
    """

    #: The database that Lakebase makes with each project.
    database = DATABASE
    #: A user who owns the database and may create roles: for set-up, migrations and demos.
    admin_user = ADMIN
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
        self._settings = Settings(
            data_dir=data_dir,
            port=port,
            workspace_port=workspace_port,
            max_connections=max_connections,
            compute_units=compute_units,
            token_lifetime=token_lifetime,
            pooler=pooler,
            postgres=postgres,
            read_only=read_only,
            suspend_timeout=suspend_timeout,
            wake_after=wake_after,
            while_waking=while_waking,
        )
        self._lock = make_rlock()
        self._running: Running | None = None

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
                self._running = Running(self._settings)
                atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop everything and remove what was temporary. Blocks until that is done; does nothing if it does not run."""
        with self._lock:
            running, self._running = self._running, None
            if running is None or not running.owner.is_this_one():
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
        running = self._running
        return running is not None and running.owner.is_this_one()

    def failure(self) -> str | None:
        """Which of its servers has ended by itself; `None` while all run."""
        return self._parts.failure()

    @property
    def _parts(self) -> Running:
        running = self._running
        if running is None or not running.owner.is_this_one():
            raise LocalLakebaseError("the local Lakebase is not running: use it as a context manager, or call start()")
        return running

    # Where it is

    @property
    def host(self) -> str:
        """Of the endpoint. The certificate is also valid for `localhost`."""
        return self._parts.direct.host

    @property
    def port(self) -> int:
        """Of the endpoint."""
        return self._parts.direct.port

    @property
    def read_only_host(self) -> str | None:
        """The host for read-only connections, if there is one."""
        address = self._parts.read_only
        return None if address is None else address.host

    @property
    def read_only_port(self) -> int | None:
        """The port for read-only connections: the endpoint's, except on systems with one loopback address."""
        address = self._parts.read_only
        return None if address is None else address.port

    @property
    def pooled_host(self) -> str | None:
        """The pooler's host; `None` if there is no pooler."""
        address = self._parts.pooled
        return None if address is None else address.host

    @property
    def pooled_port(self) -> int | None:
        """The pooler's port: the endpoint's, except on systems with one loopback address; `None` without a pooler."""
        address = self._parts.pooled
        return None if address is None else address.port

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
        """The value for `DATABRICKS_HOST`."""
        return self._parts.workspace_url

    @property
    def postgres_version(self) -> int:
        """Major version of the server."""
        return self._parts.postgres.version

    @property
    def socket_directory(self) -> Path | None:
        """Where Postgres itself listens and trusts every connection; `None` if it runs in a container."""
        address = self._parts.postgres.address
        return Path(address.host) if address.socket_path is not None else None

    # Users and their tokens

    @property
    def admin_token(self) -> str:
        """A workspace token of `admin_user`."""
        return self.token(self.admin_user)

    @property
    def client_id(self) -> str:
        """The app's service principal, which may create schemas and tables; also its role."""
        return self._parts.users.app

    @property
    def client_secret(self) -> str:
        """The OAuth secret of the app's service principal."""
        return self._parts.users.app_secret

    def add_user(self, name: str) -> str:
        """
        A new workspace token of that user; the user and a role of the same name are made if missing.

        Earlier tokens stay valid: this is also how a user's token is rotated.

        Raises:
            LocalLakebaseError: The name cannot be a role's.
        """
        return self._parts.users.add(name)

    def forwarded_token(self, user: str, scopes: Iterable[str] = ("postgres",)) -> str:
        """
        A token of that user as Databricks Apps forwards it to an app: it expires, and allows what its scopes say.

        Without the scope `postgres` the workspace API refuses to mint with it, as for an app whose user authorization
        lacks that scope. The user is made if missing; `token(user)` stays what it was.

        Args:
            user: The user.
            scopes: Of the token.
        """
        return self._parts.users.forwarded_token(user, frozenset(scopes))

    def add_service_principal(self, client_id: str | None = None) -> tuple[str, str]:
        """
        The client id, which is also the role, and OAuth secret of a new service principal.

        Raises:
            LocalLakebaseError: The client id cannot be a role's name.
        """
        return self._parts.users.add_service_principal(str(uuid.uuid4()) if client_id is None else client_id)

    def add_password_role(self, name: str, password: str) -> None:
        """
        Make a role that logs in with a native password, as the pooler requires; or change its password.

        Raises:
            LocalLakebaseError: The name cannot be a role's, or the password is empty.
        """
        self._parts.users.add_password_role(name, password)

    def revoke(self, user: str) -> None:
        """Make all workspace tokens, secrets and credentials of a user invalid. Open connections stay."""
        self._parts.users.revoke(user)

    def token(self, user: str) -> str:
        """
        The user's latest workspace token.

        Raises:
            LocalLakebaseError: There is no such user.
        """
        return self._parts.users.token(user)

    def mint(self, user: str, *, lifetime: float | None = None) -> str:
        """A database credential without the workspace API, valid for that many seconds (`None`: `token_lifetime`)."""
        check_seconds("lifetime", lifetime, none="token_lifetime")
        return self._parts.users.mint(user, lifetime)

    def expire_tokens(self, user: str | None = None) -> None:
        """Let the credentials minted so far expire now, of one user or of all. Open connections stay."""
        self._parts.issuer.expire(user)

    # How to connect

    def config(self, user: str | None = None, **overrides: Any) -> LakebasePoolConfig:
        """
        A pool's configuration for that user, `admin_user` if `None`; `overrides` are further fields of it.

        Raises:
            LocalLakebaseError: There is no such user, and no `password` among the overrides.
        """
        from ..config import LakebasePoolConfig

        name = user or self.admin_user
        address = self._parts.address(pooled=bool(overrides.get("pooled")), read_only=bool(overrides.get("read_only")))
        values: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
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
        if overrides.get("pooled") and "host" not in overrides:
            values["endpoint_hosts"] = self._parts.pooled_hosts
        return LakebasePoolConfig(**{**values, **overrides})

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

    def environment(self, client: Client = "python", user: str | None = None) -> dict[str, str]:
        """
        The variables that an app finds on Databricks, with the certificate to trust; or those of another client.

        Args:
            client: `python`, `node`, `psql`, `jdbc`, `dotenv` or `docker`. `psql` and `jdbc` get a minted password.
            user: Whose; `None` is the app's service principal, and for `psql` and `jdbc` `admin_user`.

        Raises:
            ValueError: There is no such client.
            LocalLakebaseError: There is no such user.
        """
        return make_environment(self, client, user)

    # Faults of the database. Each `Fault` is in force when the method returns: use it in a `with` block, or call its
    # `clear()`. Where two concern the same client, the one made last strikes.

    def refuse(
        self, reason: str = "refused", message: str | None = None, *, count: int | None = None, user: str | None = None
    ) -> Fault:
        """
        Let no new connection succeed.

        Args:
            reason: `refused`: the port does not listen, so `connect` gets ECONNREFUSED. `reset`: the connection is
                dropped without an answer. Anything else is the SQLSTATE of the error that the client gets.
            message: The error's text, in which `{user}` is the role; for well-known codes Postgres' own if `None`.
            count: How many connections; `None` for all until it is cleared. Not for `refused`, which cannot be counted.
            user: Only this role's connections; `None` for those of all roles. Not for `refused`.
        """
        return self._parts.gateway.faults.refuse(reason, message, count=count, user=user)

    def too_many_connections(self, *, count: int | None = None, user: str | None = None) -> Fault:
        """Answer new connections as if all connection slots of Postgres were taken (53300)."""
        return self.refuse("53300", count=count, user=user)

    def delay(self, seconds: float, *, count: int | None = None, user: str | None = None) -> Fault:
        """Answer new connections later by that many seconds."""
        return self._parts.gateway.faults.delay(seconds, count=count, user=user)

    def hang(self, *, count: int | None = None, user: str | None = None) -> Fault:
        """Accept new connections and never answer them; when it is cleared, clients that still wait go on."""
        return self._parts.gateway.faults.hang(count=count, user=user)

    def stall(self) -> Fault:
        """Let no byte through on open connections, in either direction; when it is cleared, they go on."""
        return self._parts.gateway.faults.stall()

    def drop_connections(self, user: str | None = None, *, silently: bool = False) -> int:
        """
        End open connections, of one role or of all, and return how many. Blocks until they are gone.

        Clients get Postgres' own message (57P01), or with `silently` a lost connection.
        """
        parts = self._parts
        return parts.loop.run(parts.gateway.drop(user, politely=not silently))

    def restart_pooler(self) -> None:
        """Kill the pooler and start it again: its clients lose their connections. Blocks until it listens."""
        self._parts.restart_pooler()

    def restart_postgres(self, *, crash: bool = False) -> None:
        """Shut Postgres down and start it again, or with `crash` kill it. Blocks until it accepts connections."""
        self._parts.postgres.restart(crash=crash)

    # Scale to zero

    @property
    def state(self) -> State:
        """Of the compute: `ACTIVE`, `IDLE` (suspended), or `INIT` while it wakes."""
        parts = self._parts
        return parts.loop.call(lambda: parts.gateway.compute.state)

    def suspend(self, wake_after: float | None = 0.3, *, while_waking: WhileWaking = "57P03") -> None:
        """
        Scale to zero: every connection is dropped, and the next attempt to connect wakes the compute.

        Blocks until the connections are gone.

        Args:
            wake_after: Seconds from that attempt until it is awake; `None`: only `resume` wakes it.
            while_waking: What clients meet until then, the first one included: the server's error `57P03`; `refused`
                (the first, which wakes the compute, is dropped without an answer); or `wait`, until it is awake.
        """
        check_while_waking(while_waking)
        check_seconds("wake_after", wake_after, none="never")
        parts = self._parts
        parts.loop.run(parts.gateway.suspend(wake_after, while_waking))

    def resume(self) -> None:
        """Wake the compute. It is active and listens when this returns."""
        parts = self._parts
        parts.loop.run(parts.gateway.resume())

    # Faults of the workspace API

    def fail_workspace(
        self,
        status: int,
        message: str | None = None,
        *,
        path: str | None = None,
        count: int | None = None,
        retry_after: float | None = None,
    ) -> Fault:
        """
        Let the workspace API answer with an error.

        Args:
            status: Of HTTP: 400, 401, 403, 404, 429, 500, 503, ….
            message: For the error's body.
            path: Only requests whose path contains this, as `/credentials`; `None` for all.
            count: How many requests; `None` for all until it is cleared.
            retry_after: Seconds in a `Retry-After` header; the SDK obeys it.
        """
        return self._parts.workspace.faults.fail(status, message, path=path, count=count, retry_after=retry_after)

    def hold_workspace(self, *, path: str | None = None) -> Fault:
        """Keep requests to the workspace API waiting; when it is cleared, they are answered."""
        return self._parts.workspace.faults.hold(path=path)

    def delay_workspace(self, seconds: float, *, path: str | None = None, count: int | None = None) -> Fault:
        """Let the workspace API answer later by that many seconds."""
        return self._parts.workspace.faults.delay(seconds, path=path, count=count)

    def clear_faults(self) -> None:
        """End all faults, and wake the compute."""
        parts = self._parts
        parts.workspace.faults.clear()
        parts.gateway.faults.clear()
        self.resume()

    # What happened

    def stats(self) -> LocalStats:
        """Counts of connections, logins, credentials and calls since the start."""
        parts = self._parts

        def snapshot() -> LocalStats:
            return parts.gateway.counters.snapshot(parts.issuer.minted(), parts.workspace.calls)

        return parts.loop.call(snapshot)

    def wait_for_connections(self, count: int, user: str | None = None, timeout: float = 10.0) -> None:
        """
        Block until exactly `count` connections are open, of one role or of all.

        Raises:
            LocalLakebaseError: They are not within `timeout` seconds.
        """
        parts = self._parts
        counters = parts.gateway.counters

        async def wait() -> None:
            async with asyncio.timeout(timeout):
                await parts.gateway.wait_until(lambda: counters.count_open(user) == count)

        try:
            parts.loop.run(wait())
        except TimeoutError as error:
            raise LocalLakebaseError(
                f"{counters.count_open(user)} connections are open, not {count}, after {timeout:g} s"
            ) from error
