"""The owner's end of the supervisor: starts and stops servers that do not outlive this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pooling.locks import make_lock

from ..errors import LocalLakebaseError
from ..fork import OwnerProcess, close_in_forked_children

if TYPE_CHECKING:
    import signal

__all__ = ["ServerProcesses"]

_SCRIPT = Path(__file__).with_name("supervisor.py")
# What servers find programs, libraries, places and messages by. SQL can show a server's environment, and PgBouncer and
# Postgres take defaults from it, as the port from PGPORT: so they inherit neither tokens nor libpq's variables.
_INHERITED = ("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "ICU_DATA")


class ServerProcesses:
    """
    Servers that a supervisor runs for this process, and directories that are removed after them.

    The supervisor notices when this process ends, even by `kill -9`, and then
    does what `close` does. The methods block, and may be called from any thread.

    Args:
        paths: Directories that the servers own.
        remove: Directories to remove when all servers have stopped.
    """

    def __init__(self, paths: Sequence[Path], remove: Sequence[Path]) -> None:
        self._lock = make_lock()
        self._owner = OwnerProcess()
        # In its own session: Ctrl-C in a terminal is meant for this process, which may still need its database.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=_environment_for_servers(os.environ),
            text=True,
            bufsize=1,
        )
        close_in_forked_children(self)
        try:
            answer = self._ask("prepare", paths=[str(p) for p in paths], remove=[str(p) for p in remove])
        except BaseException:
            self.close()
            raise
        #: How the servers run: as this user (`own`), in a user `namespace`, or as `nobody`.
        self.identity: str = answer["identity"]

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None
            assert stdout is not None
            try:
                stdin.write(json.dumps({"do": command, **arguments}) + "\n")
                stdin.flush()
                line = stdout.readline()
            except (OSError, ValueError) as error:
                raise LocalLakebaseError(f"the local Lakebase's servers were stopped: {error}") from error
        if not line:
            raise LocalLakebaseError("the process that runs the local Lakebase's servers has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LocalLakebaseError(f"{command}: {answer['error']}")
        return answer

    def run(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> int | None:
        """The exit status of a command that has run to its end; `None` if it was killed after `timeout` seconds."""
        answer = self._ask("run", argv=list(argv), log=str(log), env=dict(env or {}), timeout=timeout)
        status: int | None = answer["status"]
        return status

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Start a server under that name, and return its process id."""
        answer = self._ask(
            "start", name=name, argv=list(argv), log=str(log), env=dict(env or {}), stop_signal=int(stop_signal)
        )
        pid: int = answer["pid"]
        return pid

    def status(self, name: str) -> int | None:
        """The server's exit status; `None` while it runs, and for a server that was never started."""
        status: int | None = self._ask("poll", name=name)["status"]
        return status

    def wait(self, name: str, timeout: float) -> int | None:
        """The server's exit status once it has ended; `None` if it still runs after `timeout` seconds."""
        status: int | None = self._ask("wait", name=name, timeout=timeout)["status"]
        return status

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send the server a signal, if it still runs."""
        self._ask("signal", name=name, number=int(number))

    def close(self) -> None:
        """Stop the servers and remove their directories. Blocks until that is done; calling again does nothing."""
        if not self._owner.is_this_one():
            return
        with self._lock:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        pass
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def descriptors(self) -> list[int]:
        """The pipe by which the supervisor notices the end of this process; none once it is closed."""
        pipe = self._process.stdin
        return [] if pipe is None or pipe.closed else [pipe.fileno()]


def _environment_for_servers(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name in _INHERITED or name.startswith("LC_")}
