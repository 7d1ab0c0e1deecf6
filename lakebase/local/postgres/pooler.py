"""The built-in pooler: a PgBouncer in transaction mode between the gateway and Postgres."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LocalLakebaseError
from .address import SUPERUSER, Address

if TYPE_CHECKING:
    from .processes import ServerProcesses

__all__ = ["GET_POOLER_SCRIPT", "Pooler", "PoolerProgram", "find_pooler", "pooler_folder"]

_VARIABLE = "LAKEBASE_LOCAL_PGBOUNCER"
# The first version that supports prepared statements of the protocol in transaction mode:
# https://www.pgbouncer.org/changelog.html
_NEEDED = (1, 21)
_START = 10.0
_GET = (
    "`lakebase local get-pooler` fetches one on Debian and Ubuntu, without touching the system; elsewhere use the "
    "system's packages, or `brew install pgbouncer`"
)
#: A program for bash that puts a PgBouncer into the directory that it is given.
GET_POOLER_SCRIPT = Path(__file__).with_name("get-pgbouncer.sh")


@dataclass(frozen=True, slots=True)
class PoolerProgram:
    """The program that was found, or why none can be used."""

    path: Path | None
    why_not: str = ""


def find_pooler(where: str = "auto") -> PoolerProgram:
    """
    A PgBouncer that is new enough to behave as Lakebase's does.

    Args:
        where: `off`; the path of one that can be used; or `auto`: the path in `LAKEBASE_LOCAL_PGBOUNCER`, else
            the first one that can be used on the PATH and in the usual places, else none.

    Raises:
        LocalLakebaseError: The one that was named, here or by the environment, cannot be used.
    """
    if where == "off":
        return PoolerProgram(None, "it was switched off by pooler='off'")
    named = os.environ.get(_VARIABLE) if where == "auto" else where
    if named:
        why_not = _objection(Path(named))
        if why_not:
            raise LocalLakebaseError(f"the pooler {named!r} cannot be used: {why_not}. {_GET}")
        return PoolerProgram(Path(named))
    objections = []
    for path in _usual_programs():
        why_not = _objection(path)
        if not why_not:
            return PoolerProgram(path)
        objections.append(f"{path}: {why_not}")
    return PoolerProgram(None, f"{'; '.join(objections) or 'no PgBouncer was found'}. {_GET}")


def pooler_folder() -> Path:
    """Where a PgBouncer is put that was fetched for local Lakebases."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "lakebase-pooling", "pgbouncer")


def _usual_programs() -> Iterator[Path]:
    found = shutil.which("pgbouncer")
    places = [
        pooler_folder() / "pgbouncer",
        *([Path(found)] if found else []),
        Path("/usr/sbin/pgbouncer"),
        Path("/usr/local/sbin/pgbouncer"),
        Path("/opt/homebrew/bin/pgbouncer"),
    ]
    yield from dict.fromkeys(path for path in places if path.exists())


def _objection(program: Path) -> str:
    try:
        text = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"it does not run here ({error})"
    found = re.search(r"PgBouncer (\d+)\.(\d+)", text)
    if found is None:
        return "it does not say that it is PgBouncer"
    version = (int(found[1]), int(found[2]))
    if version < _NEEDED:
        return (
            f"it is PgBouncer {version[0]}.{version[1]}; before {_NEEDED[0]}.{_NEEDED[1]} prepared statements fail in "
            "transaction mode, which Lakebase's pooler supports"
        )
    return ""


class Pooler:
    """
    A PgBouncer on a Unix socket. It trusts every connection, since the gateway has checked the password.

    Args:
        program: PgBouncer.
        processes: Where it runs.
        server: Where Postgres listens.
        run: A private directory with a short path.
        max_connections: The limit of Postgres.
    """

    def __init__(
        self, program: Path, processes: ServerProcesses, server: Address, *, run: Path, max_connections: int
    ) -> None:
        self._program = program
        self._processes = processes
        self._server = server
        self._run = run
        self._limit = max_connections
        self._log = run / "pgbouncer.log"
        self.address: Address = Address(str(run), 6432)

    def start(self) -> None:
        """Run it. Blocks until it listens."""
        users = self._run / "pgbouncer.users"
        users.write_text(f'"{SUPERUSER}" ""\n', encoding="utf-8")
        settings = self._run / "pgbouncer.ini"
        settings.write_text(self._settings(users), encoding="utf-8")
        for path in (users, settings):
            path.chmod(0o644)  # the directory is private, and the program may run as another user
        self._launch()

    def restart(self) -> None:
        """Kill it and run it again: its clients lose their connections. Blocks until it listens."""
        self._processes.signal("pgbouncer", signal.SIGKILL)
        while self._processes.wait("pgbouncer", 1.0) is None:
            pass
        self._launch()

    def _settings(self, users: Path) -> str:
        # A tenth is left to direct connections, clients wait 120 s for a server connection, and 10,000 may connect:
        # https://docs.databricks.com/aws/en/oltp/projects/connection-pooling
        return "\n".join(
            (
                "[databases]",
                f"* = host={self._server.host} port={self._server.port}",
                "[pgbouncer]",
                "pool_mode = transaction",
                "listen_addr =",
                f"listen_port = {self.address.port}",
                f"unix_socket_dir = {self.address.host}",
                "unix_socket_mode = 0700",
                "auth_type = trust",
                f"auth_file = {users}",
                f"auth_user = {SUPERUSER}",
                "auth_query = select rolname, rolpassword from pg_authid where rolname = $1 and rolcanlogin",
                f"default_pool_size = {max(1, self._limit * 9 // 10)}",
                "max_client_conn = 10000",
                "query_wait_timeout = 120",
                "max_prepared_statements = 200",
                # A restarted server must be noticed soon.
                "server_login_retry = 1",
                "server_tls_sslmode = disable",
                "log_connections = 0",
                "log_disconnections = 0",
                "log_stats = 0",
                "",
            )
        )

    def _launch(self) -> None:
        socket = Path(self.address.socket_path or "")
        socket.unlink(missing_ok=True)
        command = [str(self._program.resolve()), "-q", str(self._run / "pgbouncer.ini")]
        self._processes.start("pgbouncer", command, log=self._log, stop_signal=signal.SIGKILL)
        deadline = time.monotonic() + _START
        while not socket.exists():
            status = self._processes.status("pgbouncer")
            if status is not None or time.monotonic() > deadline:
                lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-4:]
                raise LocalLakebaseError(f"PgBouncer did not start (status {status}): {' / '.join(lines)}")
            time.sleep(0.005)
