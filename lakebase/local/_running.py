"""A local Lakebase that runs: its parts, put together in order and taken apart in reverse."""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ._children import Children
from ._control import Control, Inquiry
from ._functions import CREATE_ROLE, write_extension
from ._gateway import Door, Gateway
from ._http import HttpServer
from ._listener import Listener
from ._loop import LoopThread
from ._postgres import OwnPostgres, PostgresServer, find_binaries
from ._tls import Certificates
from ._tokens import Issuer
from ._workspace import Place, Workspace
from .errors import LocalLakebaseError

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
    admin: str


class Running:
    """
    All parts, started. Blocks for about a second; a failure takes apart what was put together.

    Args:
        settings: What is wanted.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with ExitStack() as stack:
            self._start(stack)
            self._parts = stack.pop_all()

    def stop(self) -> None:
        """Take everything apart. Blocks until processes and files are gone."""
        self._parts.close()

    def restart_postgres(self, *, crash: bool) -> None:
        """End Postgres and run it again. Blocks until it accepts connections."""
        self.postgres.restart(crash=crash)

    def _start(self, stack: ExitStack) -> None:
        settings = self.settings
        if sys.platform == "win32":
            raise LocalLakebaseError("a local Lakebase runs on Linux and macOS; on Windows, run it in WSL")
        self.home = _private_directory()
        stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        keep = settings.data_dir or self.home
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        data, run, share = keep / "pgdata", self.home / "run", self.home / "share"
        if settings.data_dir is not None:
            stack.enter_context(_locked(settings.data_dir))
        for directory in (data, run):
            directory.mkdir(mode=0o700, exist_ok=True)
        write_extension(share)
        certificates = Certificates(keep / "tls", _NAMES)
        self.ca_file = certificates.ca_file

        self.children = Children([data, run, share], [self.home])
        stack.callback(self.children.close)
        self.postgres: PostgresServer = OwnPostgres(
            find_binaries(settings.postgres),
            data,
            run,
            max_connections=settings.max_connections,
            durable=settings.data_dir is not None,
            extensions=share,
        )
        self.postgres.start(self.children)
        stack.callback(self.postgres.stop)
        self.control = Control(self.postgres.address)
        # Before 18 an extension can only be found among the server's own: the function is there without it.
        self.control.prepare(settings.admin, CREATE_ROLE if self.postgres.version < 18 else "")

        self.loop = LoopThread("local-lakebase")
        self.loop.start()
        stack.callback(self.loop.stop)
        self.issuer = Issuer(settings.token_lifetime)
        self._open_gateway(stack, certificates)
        self._open_workspace(stack)

    def _open_gateway(self, stack: ExitStack, certificates: Certificates) -> None:
        inquiry = Inquiry(self.postgres.address)
        stack.callback(lambda: self.loop.run(inquiry.close()))
        self.gateway = Gateway(self.issuer, inquiry, certificates.server_context(), self.loop.run)
        stack.callback(lambda: self.loop.run(self.gateway.close()))
        self.hosts = {"host": DIRECT_HOST}
        doors = [Door("direct", _listener(DIRECT_HOST, self.settings.port), self.postgres.address)]
        self.port = doors[0].listener.port
        if self.settings.read_only:
            self.hosts["read_only_host"] = READ_ONLY_HOST
            read_only = {"default_transaction_read_only": "on"}
            listener = _listener(READ_ONLY_HOST, self.port)
            doors.append(Door("read-only", listener, self.postgres.address, settings=read_only))
        for door in doors:
            self.loop.run(self.gateway.open(door))

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
        port = self.loop.run(server.open(DIRECT_HOST, settings.workspace_port))
        self.workspace_url = f"http://{DIRECT_HOST}:{port}"


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
        raise LocalLakebaseError(
            f"cannot listen on {host}:{port}: {error.strerror}. Give another port=, or 0 for any free one"
        ) from error


def service_principal_id() -> str:
    """A new application id."""
    return str(uuid.uuid4())
