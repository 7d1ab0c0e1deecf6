"""A local Lakebase that runs: its parts are started in order, and stopped in reverse."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..hosts import EndpointHosts
from .errors import LocalLakebaseError
from .files import lock_data_dir, make_private_directory, name_data_dir_in_errors
from .fork import OwnerProcess
from .gateway import Certificates, Gateway, Listener, Route
from .http_server import HttpServer
from .loop_thread import LoopThread
from .postgres import (
    Address,
    Catalog,
    ContainerPostgres,
    LoginQueries,
    OwnPostgres,
    Pooler,
    PoolerProgram,
    PostgresServer,
    Roles,
    ServerProcesses,
    find_binaries,
    find_pooler,
    write_extensions,
)
from .workspace import Identities, Issuer, LocalEndpoint, Users, WorkspaceApi

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings

__all__ = ["ADMIN", "ENDPOINT", "INSTANCE", "Running"]

ADMIN = "admin@lakebase.local"
ENDPOINT = "projects/local/branches/production/endpoints/primary"
INSTANCE = "local"

_DIRECT_HOST, _POOLED_HOST, _READ_ONLY_HOST = "127.0.0.1", "127.0.0.2", "127.0.0.3"
_NAMES = ("localhost", _DIRECT_HOST, _POOLED_HOST, _READ_ONLY_HOST)


class Running:
    """
    All parts, started. Blocks for about a second; if one fails to start, those before it are stopped.

    Args:
        settings: What to start.

    Raises:
        LocalLakebaseError: A part is missing, or a port or directory is taken.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owner: OwnerProcess = OwnerProcess()
        self.pooled: Address | None = None
        self.pooled_hosts: EndpointHosts | None = None
        self.read_only: Address | None = None
        with ExitStack() as stack:
            self._start(stack)
            self._parts = stack.pop_all()

    def stop(self) -> None:
        """Stop all parts. Blocks until processes and files are gone."""
        self._parts.close()

    def failure(self) -> str | None:
        """Which of the servers has ended by itself; `None` while all run."""
        for name in ("postgres", "pgbouncer"):
            status = self.processes.status(name)
            if status is not None:
                return f"{name} has ended with status {status}"
        return None

    def restart_pooler(self) -> None:
        """Kill the pooler and run it again. Blocks until it listens."""
        if self.pooler is None:
            raise LocalLakebaseError(f"there is no pooler: {self.why_no_pooler}")
        self.pooler.restart()

    def address(self, *, pooled: bool, read_only: bool) -> Address:
        """
        The address for connections of this kind.

        Raises:
            LocalLakebaseError: There is none.
        """
        if pooled and read_only:
            raise LocalLakebaseError("there is no pooler for read-only connections: choose pooled or read_only")
        if pooled:
            if self.pooled is None:
                raise LocalLakebaseError(f"there is no pooler: {self.why_no_pooler}")
            return self.pooled
        if read_only:
            if self.read_only is None:
                raise LocalLakebaseError("there is no read-only host: start it with LocalLakebase(read_only=True)")
            return self.read_only
        return self.direct

    def _start(self, stack: ExitStack) -> None:
        settings = self.settings
        if sys.platform == "win32":
            raise LocalLakebaseError("a local Lakebase runs on Linux and macOS; on Windows, run it in WSL")
        pooler = find_pooler(os.fspath(settings.pooler))
        postgres = os.fspath(settings.postgres)
        binaries = None if postgres == "docker" else find_binaries(postgres)
        home = make_private_directory()
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        keep = settings.data_path or home
        data, run, extensions = keep / "pgdata", home / "run", home / "share"
        with name_data_dir_in_errors(settings.data_path):
            keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            if settings.data_path is not None:
                stack.enter_context(lock_data_dir(settings.data_path))
            identities = Identities.load(settings.data_path)
            data.mkdir(mode=0o700, exist_ok=True)
            certificates = Certificates(keep / "tls", _NAMES)
        self.ca_file: Path = certificates.ca_file
        run.mkdir(mode=0o700)
        write_extensions(extensions, binaries)

        self.processes: ServerProcesses = ServerProcesses([data, run, extensions], [home])
        stack.callback(self.processes.close)
        self.postgres: PostgresServer = self._make_postgres(binaries, data, run, extensions)
        stack.callback(self.postgres.stop)
        self.postgres.start()
        roles = Roles(self.postgres.address)
        # Before Postgres 18, and in a container, the extension cannot be installed.
        roles.prepare(ADMIN, with_function=binaries is None or self.postgres.version < 18)
        self._start_pooler(pooler, run)

        self.loop: LoopThread = LoopThread("local-lakebase")
        self.loop.start()
        stack.callback(self.loop.stop)
        self.issuer: Issuer = Issuer(settings.token_lifetime)
        self._open_gateway(stack, certificates)
        self._open_workspace(stack)
        self.users: Users = Users(roles, self.issuer, identities)
        self.users.ensure_admin(ADMIN)
        self.users.ensure_app()

    def _make_postgres(self, binaries: Path | None, data: Path, run: Path, extensions: Path) -> PostgresServer:
        settings = self.settings
        if binaries is None:
            if settings.data_path is not None:
                raise LocalLakebaseError("postgres='docker' keeps no data: leave out data_dir=")
            return ContainerPostgres(max_connections=settings.connection_limit)
        return OwnPostgres(
            binaries,
            self.processes,
            data=data,
            run=run,
            max_connections=settings.connection_limit,
            durable=settings.data_path is not None,
            extensions=extensions,
        )

    def _start_pooler(self, found: PoolerProgram, run: Path) -> None:
        self.why_no_pooler: str = found.why_not
        self.pooler: Pooler | None = None
        if found.path is not None:
            limit = self.settings.connection_limit
            self.pooler = Pooler(found.path, self.processes, self.postgres.address, run=run, max_connections=limit)
            self.pooler.start()

    def _open_gateway(self, stack: ExitStack, certificates: Certificates) -> None:
        settings = self.settings
        queries = LoginQueries(self.postgres.address)
        stack.callback(lambda: self.loop.run(queries.close()))
        self.gateway: Gateway = Gateway(self.issuer, queries, certificates.server_context(), self.loop.run)
        stack.callback(lambda: self.loop.run(self.gateway.close()))
        for route in self._make_routes():
            self.loop.run(self.gateway.open(route))
        if settings.suspend_timeout is not None:
            self.loop.spawn(
                self.gateway.scale_to_zero(settings.suspend_timeout, settings.wake_after, settings.while_waking)
            )

    def _make_routes(self) -> list[Route]:
        listener = _listen(_DIRECT_HOST, self.settings.port)
        self.direct: Address = Address(listener.host, listener.port)
        self.hosts: dict[str, str] = {"host": listener.host}
        routes = [Route("direct", listener, self.postgres.address)]
        if self.settings.read_only:
            listener = self._listen_beside(_READ_ONLY_HOST)
            self.read_only = Address(listener.host, listener.port)
            self.hosts["read_only_host"] = listener.host
            read_only = {"default_transaction_read_only": "on"}
            routes.append(Route("read-only", listener, self.postgres.address, settings=read_only))
        if self.pooler is not None:
            listener = self._listen_beside(_POOLED_HOST)
            read_only_host, port = self.hosts.get("read_only_host"), self.direct.port
            self.pooled_hosts = EndpointHosts(_DIRECT_HOST, read_only_host, listener.host, direct_port=port)
            self.pooled = Address(listener.host, listener.port)
            self.hosts["read_write_pooled_host"] = listener.host
            routes.append(Route("pooled", listener, self.pooler.address, is_pooled=True))
        return routes

    def _listen_beside(self, host: str) -> Listener:
        # The hosts of an endpoint share one port. So do these, where 127.0.0.0/8 is this machine, as on Linux.
        try:
            return Listener(host, self.direct.port)
        except OSError:
            return _listen(_DIRECT_HOST, 0)

    def _open_workspace(self, stack: ExitStack) -> None:
        settings = self.settings
        endpoint = LocalEndpoint(
            name=ENDPOINT,
            instance_name=INSTANCE,
            hosts=self.hosts,
            compute_units=1.0 if settings.compute_units is None else settings.compute_units,
            suspend_timeout=settings.suspend_timeout,
            pg_version=self.postgres.version,
            state=lambda: self.gateway.compute.state,
        )
        self.workspace: WorkspaceApi = WorkspaceApi(
            self.issuer,
            endpoint,
            Catalog(self.postgres.address),
            owner=ADMIN,
            url=lambda: self.workspace_url,
            run=self.loop.run,
        )
        server = HttpServer(self.workspace.answer)
        stack.callback(lambda: self.loop.run(server.close()))
        try:
            port = self.loop.run(server.open(_DIRECT_HOST, settings.workspace_port))
        except OSError as error:
            raise _port_error(_DIRECT_HOST, "workspace_port", settings.workspace_port, error) from error
        self.workspace_url: str = f"http://{_DIRECT_HOST}:{port}"


def _listen(host: str, port: int) -> Listener:
    try:
        return Listener(host, port)
    except OSError as error:
        raise _port_error(host, "port", port, error) from error


def _port_error(host: str, option: str, port: int, error: OSError) -> LocalLakebaseError:
    # The number, since asyncio adds the address to `strerror`.
    why = os.strerror(error.errno) if error.errno else str(error)
    return LocalLakebaseError(f"cannot listen on {host}:{port}: {why}. Give another {option}=, or 0 for any free one")
