"""The door to a local Lakebase."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..limits import direct_connections
from ._checks import check_path, check_seconds, check_while_waking, check_whole, check_yes_or_no
from ._fault_methods import FaultMethods
from ._running import Running, Settings
from ._user_methods import UserMethods
from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from types import TracebackType

    from ._scale import WhileWaking
    from ._stats import LocalStats

__all__ = ["LocalLakebase"]


class LocalLakebase(UserMethods, FaultMethods):
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
        ValueError: A value that cannot be meant.
        LocalLakebaseError: From `start`: something it needs is missing, or a port or directory is taken.
    """

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
            check_whole(name, number, 0, 65535)
        check_whole("max_connections", max_connections, 1)
        check_seconds("token_lifetime", token_lifetime, least="more than 0")
        check_seconds("suspend_timeout", suspend_timeout, least="more than 0", none="never")
        check_seconds("wake_after", wake_after)
        check_while_waking(while_waking)
        check_yes_or_no("read_only", read_only)
        for name, path in (("pooler", pooler), ("postgres", postgres)):
            check_path(name, path)
        if data_dir is not None:
            check_path("data_dir", data_dir)
        self._settings = Settings(
            data_dir=None if data_dir is None else Path(data_dir).absolute(),
            port=port,
            workspace_port=workspace_port,
            max_connections=max_connections if compute_units is None else direct_connections(compute_units),
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
        known = running.identities
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
