"""
The process between a local Lakebase and its servers: `python supervisor.py`.

It reads one JSON command a line from standard input and answers each with one
line. When its input ends, it stops the servers and removes the directories
that it was told to remove. Since the operating system closes the pipe of an
owner that dies, not even `kill -9` of the owner leaves anything behind.

It is a program that imports nothing but the standard library, and has one
thread. That makes `fork` and the parent-death signal safe here: the signal is
sent when the *thread* that forked ends, not the process
(https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_NOBODY = 65534
_GRACE = 5.0


class _Ended(Exception):  # noqa: N818
    """A signal tells the supervisor to end."""


class _Child:
    def __init__(self, pid: int, stop_signal: int) -> None:
        self.pid = pid
        self.stop_signal = stop_signal
        self.status: int | None = None

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        pause = 0.001
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return self.status

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def stop(self) -> None:
        for number in (self.stop_signal, signal.SIGQUIT, signal.SIGKILL):
            self.signal(number)
            if self.wait(_GRACE) is not None:
                return


class Supervisor:
    """
    Runs servers and answers commands.

    A command's method gets the command's fields and returns those of the answer.
    """

    def __init__(self) -> None:
        self._commands: dict[str, Callable[..., dict[str, Any]]] = {
            "prepare": self._prepare,
            "run": self._run,
            "start": self._start,
            "poll": self._poll,
            "wait": self._wait,
            "signal": self._signal,
        }
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._children: dict[str, _Child] = {}
        self._to_remove: list[str] = []
        self._identity = "own"

    # Postgres and PgBouncer refuse to run as root. In a user namespace with one entry the servers see themselves as
    # `nobody`, and the rest of the system sees them as the owner of their files. Where namespaces are blocked (in many
    # containers), the servers really become `nobody`, who gets the directories.

    def _prepare(self, paths: list[str], remove: list[str]) -> dict[str, Any]:
        self._to_remove = remove
        if os.geteuid() == 0:
            self._identity = "namespace" if self._can_unshare() else "nobody"
        elif not _has_name(os.geteuid()) and self._can_unshare():
            self._identity = "namespace"  # `initdb` needs the name of its user, which some containers do not have
        if self._identity == "nobody":
            for path in map(Path, paths):
                path.parent.chmod(0o711)
                for entry in (path, *path.rglob("*")):
                    os.chown(entry, _NOBODY, _NOBODY, follow_symlinks=False)
        return {"identity": self._identity}

    def _can_unshare(self) -> bool:
        if not sys.platform.startswith("linux"):
            return False
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._enter_namespace()
                status = 0
            finally:
                os._exit(status)
        return os.waitpid(pid, 0)[1] == 0

    def _enter_namespace(self) -> None:
        uid, gid = os.geteuid(), os.getegid()
        if self._libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{_NOBODY} {uid} 1"),
            ("gid_map", f"{_NOBODY} {gid} 1"),
        ):
            Path("/proc/self", name).write_text(text, encoding="ascii")

    def _run(self, argv: list[str], log: str, env: dict[str, str], timeout: float) -> dict[str, Any]:
        child = _Child(self._spawn(argv, log, env), signal.SIGKILL)
        status = child.wait(timeout)
        if status is None:
            child.stop()
        return {"status": status}

    def _start(self, name: str, argv: list[str], log: str, env: dict[str, str], stop_signal: int) -> dict[str, Any]:
        child = self._children[name] = _Child(self._spawn(argv, log, env), stop_signal)
        return {"pid": child.pid}

    def _poll(self, name: str) -> dict[str, Any]:
        # A server that was never started has not ended: Postgres may be in a container, and there may be no pooler.
        return {"status": self._children[name].poll() if name in self._children else None}

    def _wait(self, name: str, timeout: float) -> dict[str, Any]:
        return {"status": self._children[name].wait(timeout)}

    def _signal(self, name: str, number: int) -> dict[str, Any]:
        self._children[name].signal(number)
        return {}

    def _spawn(self, argv: list[str], log: str, env: dict[str, str]) -> int:
        pid = os.fork()
        if pid == 0:
            self._become(argv, log, env)
        return pid

    def _become(self, argv: list[str], log: str, env: dict[str, str]) -> NoReturn:
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.closerange(3, 256)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.umask(0o077)
            if self._identity == "namespace":
                self._enter_namespace()
            elif self._identity == "nobody":
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            if sys.platform.startswith("linux"):
                # The servers end if this process is killed. Set after the change of identity, which clears the setting.
                self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
            os.execve(argv[0], argv, {**os.environ, **env})  # noqa: S606
        except BaseException:  # noqa: BLE001
            os.write(2, traceback.format_exc().encode())
        os._exit(127)

    def end(self) -> None:
        """Stop the servers, last started first, and remove the directories."""
        for child in reversed(self._children.values()):
            with contextlib.suppress(OSError):
                child.stop()
        for path in self._to_remove:
            shutil.rmtree(path, ignore_errors=True)

    def serve(self) -> None:
        """Answer commands until there are no more."""
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = self._commands[command.pop("do")](**command)
            except (OSError, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            # Not through `sys.stdout`: an answer that an interrupted owner no longer reads would stay in its buffer,
            # and the interpreter would report that as an error when it exits.
            os.write(1, json.dumps(answer).encode() + b"\n")


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise _Ended


def main() -> None:
    """Serve standard input, then clean up."""
    supervisor = Supervisor()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        supervisor.serve()
    except (_Ended, BrokenPipeError):
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        supervisor.end()


if __name__ == "__main__":
    main()
