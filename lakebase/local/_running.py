"""A local Lakebase that runs: its parts, put together in order and taken apart in reverse."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..hosts import EndpointHosts
from ._children import Children
from ._control import Control, Inquiry
from ._functions import CREATE_ROLE, write_extension
from ._gateway import Door, Gateway
from ._http import HttpServer
from ._identities import Identities
from ._listener import Listener
from ._loop import LoopThread
from ._pooler import Pooler, PoolerProgram, find_pooler
from ._postgres import Address, OwnPostgres, PostgresServer, find_binaries
from ._tls import Certificates
from ._tokens import Issuer
from ._workspace import Place, Workspace
from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from ._scale import WhileWaking

__all__ = ["Running", "Settings"]

ENDPOINT = "projects/local/branches/production/endpoints/primary"
INSTANCE = "local"
DIRECT_HOST, POOLED_HOST, READ_ONLY_HOST = "127.0.0.1", "127.0.0.2", "127.0.0.3"
_NAMES = ("localhost", DIRECT_HOST, POOLED_HOST, READ_ONLY_HOST)
# sockaddr_un has room for 103 bytes on macOS and 107 on Linux, and the file's own name takes 15.
_LONGEST_DIRECTORY = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a local Lakebase is asked to be; see `LocalLakebase`."""

    data_dir: Path | None
    port: int
    workspace_port: int
    max_connections: int
    compute_units: float
    token_lifetime: float
    pooler: str
    postgres: str
    read_only: bool
    suspend_timeout: float | None
    wake_after: float
    while_waking: WhileWaking
    admin: str


class Running:
    """
    All parts, started. Blocks for about a second; a failure takes apart what was put together.

    Args:
        settings: What is wanted.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pooled: Address | None = None
        self.pooled_hosts: EndpointHosts | None = None
        self.read_only: Address | None = None
        with ExitStack() as stack:
            self._start(stack)
            self._parts = stack.pop_all()

    def stop(self) -> None:
        """Take everything apart. Blocks until processes and files are gone."""
        self._parts.close()

    def failure(self) -> str | None:
        """Which of the servers has ended."""
        for name in ("postgres", "pgbouncer"):
            status = self.children.status(name)
            if status is not None:
                return f"{name} has ended with status {status}"
        return None

    def restart_pooler(self) -> None:
        """Kill the pooler and run it again."""
        if self.pooler is None:
            raise LocalLakebaseError(f"there is no pooler: {self.why_no_pooler}")
        self.pooler.restart(self.children)

    def restart_postgres(self, *, crash: bool) -> None:
        """End Postgres and run it again. Blocks until it accepts connections."""
        self.postgres.restart(crash=crash)

    def _start(self, stack: ExitStack) -> None:
        settings = self.settings
        if sys.platform == "win32":
            raise LocalLakebaseError("a local Lakebase runs on Linux and macOS; on Windows, run it in WSL")
        pooler = find_pooler(settings.pooler)
        binaries = None if settings.postgres == "docker" else find_binaries(settings.postgres)
        self.home = _private_directory()
        stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        keep = settings.data_dir or self.home
        data, run, share = keep / "pgdata", self.home / "run", self.home / "share"
        with _named(settings.data_dir):
            keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            if settings.data_dir is not None:
                stack.enter_context(_locked(settings.data_dir))
            self.identities = Identities.kept_in(settings.data_dir)
            data.mkdir(mode=0o700, exist_ok=True)
            certificates = Certificates(keep / "tls", _NAMES)
        self.run = run
        run.mkdir(mode=0o700)
        write_extension(share)
        self.ca_file = certificates.ca_file

        self.children = Children([data, run, share], [self.home])
        stack.callback(self.children.close)
        self.postgres = self._server(binaries, data, run, share)
        stack.callback(self.postgres.stop)
        self.postgres.start(self.children)
        self.control = Control(self.postgres.address)
        # Before 18, and in a container, there is no room for an extension: the function is there without it.
        bare = binaries is None or self.postgres.version < 18
        self.control.prepare(settings.admin, CREATE_ROLE if bare else "")
        self._start_pooler(pooler)

        self.loop = LoopThread("local-lakebase")
        self.loop.start()
        stack.callback(self.loop.stop)
        self.issuer = Issuer(settings.token_lifetime)
        self._open_gateway(stack, certificates)
        self._open_workspace(stack)

    def _start_pooler(self, found: PoolerProgram) -> None:
        self.why_no_pooler = found.why_not
        self.pooler: Pooler | None = None
        if found.path is not None:
            limit = self.settings.max_connections
            self.pooler = Pooler(found.path, self.postgres.address, self.run, max_connections=limit)
            self.pooler.start(self.children)

    def _open_gateway(self, stack: ExitStack, certificates: Certificates) -> None:
        inquiry = Inquiry(self.postgres.address)
        stack.callback(lambda: self.loop.run(inquiry.close()))
        self.gateway = Gateway(self.issuer, inquiry, certificates.server_context(), self.loop.run)
        stack.callback(lambda: self.loop.run(self.gateway.close()))
        self.hosts = {"host": DIRECT_HOST}
        doors = [Door("direct", _listener(DIRECT_HOST, self.settings.port), self.postgres.address)]
        self.port = doors[0].listener.port
        if self.settings.read_only:
            read_only = {"default_transaction_read_only": "on"}
            listener = self._another(READ_ONLY_HOST)
            self.read_only = Address(listener.host, listener.port)
            self.hosts["read_only_host"] = listener.host
            doors.append(Door("read-only", listener, self.postgres.address, settings=read_only))
        if self.pooler is not None:
            listener = self._another(POOLED_HOST)
            read_only_host = self.hosts.get("read_only_host")
            self.pooled_hosts = EndpointHosts(DIRECT_HOST, read_only_host, listener.host, direct_port=self.port)
            self.pooled = Address(listener.host, listener.port)
            self.hosts["read_write_pooled_host"] = listener.host
            doors.append(Door("pooled", listener, self.pooler.address, is_pooled=True))
        for door in doors:
            self.loop.run(self.gateway.open(door))
        if self.settings.suspend_timeout is not None:
            self.loop.spawn(
                self.gateway.scale_to_zero(
                    self.settings.suspend_timeout, self.settings.wake_after, self.settings.while_waking
                )
            )

    def _another(self, host: str) -> Listener:
        # An endpoint's hosts have one port, and so have these, where all of 127.0.0.0/8 is this machine, as on Linux.
        try:
            return Listener(host, self.port)
        except OSError:
            return _listener(DIRECT_HOST, 0)

    def _server(self, binaries: Path | None, data: Path, run: Path, share: Path) -> PostgresServer:
        settings = self.settings
        if binaries is None:
            if settings.data_dir is not None:
                raise LocalLakebaseError("postgres='docker' keeps no data: leave out data_dir=")
            from ._docker import ContainerPostgres

            return ContainerPostgres(max_connections=settings.max_connections)
        return OwnPostgres(
            binaries,
            data,
            run,
            max_connections=settings.max_connections,
            durable=settings.data_dir is not None,
            extensions=share,
        )

    def _open_workspace(self, stack: ExitStack) -> None:
        settings = self.settings
        place = Place(
            endpoint=ENDPOINT,
            instance_name=INSTANCE,
            hosts=self.hosts,
            compute_units=settings.compute_units,
            suspend_timeout=settings.suspend_timeout,
            pg_version=self.postgres.version,
            state=lambda: self.gateway.compute.state,
        )
        self.workspace = Workspace(self.issuer, place, lambda: self.workspace_url, self.loop.run)
        server = HttpServer(self.workspace.answer)
        stack.callback(lambda: self.loop.run(server.close()))
        try:
            port = self.loop.run(server.open(DIRECT_HOST, settings.workspace_port))
        except OSError as error:
            raise _taken(DIRECT_HOST, "workspace_port", settings.workspace_port, error) from error
        self.workspace_url = f"http://{DIRECT_HOST}:{port}"


@contextmanager
def _named(data_dir: Path | None) -> Iterator[None]:
    """An error of the operating system, in words about the directory that was given."""
    try:
        yield
    except OSError as error:
        if data_dir is None:
            raise
        raise LocalLakebaseError(
            f"data_dir {str(data_dir)!r} cannot be used: {error.strerror or error}. Give a directory of this user's "
            "own, or one that can be made"
        ) from error


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    import fcntl

    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalLakebaseError(
                f"data_dir {str(data_dir)!r} is in use by another local Lakebase: stop that one, or give another"
            ) from error
        yield


def _private_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="lakebase-"))
    if len(str(directory)) > _LONGEST_DIRECTORY:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="lakebase-", dir="/tmp"))
    return directory


def _listener(host: str, port: int) -> Listener:
    try:
        return Listener(host, port)
    except OSError as error:
        raise _taken(host, "port", port, error) from error


def _taken(host: str, name: str, port: int, error: OSError) -> LocalLakebaseError:
    # asyncio puts the address into `strerror` once more.
    why = os.strerror(error.errno) if error.errno else str(error)
    return LocalLakebaseError(f"cannot listen on {host}:{port}: {why}. Give another {name}=, or 0 for any free one")
