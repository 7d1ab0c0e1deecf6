"""The local Lakebases that this user runs from a command line: a record each, which is there as long as they run."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ._private import write_private
from .errors import LocalLakebaseError

__all__ = ["Claim", "Record", "claimed", "records"]

DEFAULT = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, repr=False)
class Record:
    """
    What other commands need to know of a running one.

    Attributes:
        desk: Address of its desk, which takes orders.
        desk_token: What the desk wants to see.
        environment: The variables for an app.
        run_dir: Of Postgres' socket.
    """

    name: str
    pid: int
    desk: str
    desk_token: str
    host: str
    port: int
    workspace_url: str
    database: str
    admin: str
    run_dir: str
    data_dir: str | None
    postgres_version: int
    pooled: str | None
    why_no_pooler: str
    environment: dict[str, str] = field(default_factory=dict)


class Claim:
    """A name that is this process's while it holds the lock on its file; a process that dies lets go of it."""

    def __init__(self, name: str, lock: Any) -> None:
        self.name = name
        self._lock = lock

    def publish(self, record: Record) -> None:
        """Let others find it."""
        write_private(_folder() / f"{self.name}.json", json.dumps(asdict(record)))


@contextmanager
def claimed(name: str | None) -> Iterator[Claim]:
    """
    A name for a local Lakebase, and the removal of its record afterwards.

    Args:
        name: `None` takes the first free one of `local`, `local-2`, ….

    Raises:
        LocalLakebaseError: Another one has it.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise LocalLakebaseError(f"{name!r} is no name: use letters, digits, '.', '_' and '-', at most 64")
    number = 1
    while True:
        candidate = name or (DEFAULT if number == 1 else f"{DEFAULT}-{number}")
        lock = _lock(candidate)
        if lock is not None:
            break
        if name is not None:
            raise LocalLakebaseError(f"a local Lakebase {name!r} runs already: `lakebase local down {name}` stops it")
        number += 1
    folder = _folder()
    try:
        yield Claim(candidate, lock)
    finally:
        for suffix in (".json", ".new", ".lock"):
            (folder / f"{candidate}{suffix}").unlink(missing_ok=True)
        lock.close()
        try:
            folder.rmdir()
        except OSError:
            pass  # others run


def records() -> list[Record]:
    """Those that run now, by name. What a killed one left is removed."""
    folder, found = _folder(create=False), []
    for path in sorted(folder.glob("*.json")):
        lock = _lock(path.stem)
        if lock is None:
            try:
                found.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue  # it has just ended, or was started by another version
        else:
            for suffix in (".json", ".lock"):
                path.with_suffix(suffix).unlink(missing_ok=True)
            lock.close()
    return sorted(found, key=lambda record: record.name)


def _folder(*, create: bool = True) -> Path:
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"lakebase-local-{os.geteuid()}")
    if create:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalLakebaseError(
                f"{folder} cannot be made ({error.strerror}): set XDG_RUNTIME_DIR to a directory of this user's"
            ) from error
    if folder.exists():
        facts = folder.lstat()
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077 or folder.is_symlink():
            raise LocalLakebaseError(f"{folder} is not this user's alone: remove it, or set XDG_RUNTIME_DIR")
    return folder


def _lock(name: str) -> Any:
    """The open lock file, locked; `None` if another process holds it."""
    import fcntl

    path = _folder() / f"{name}.lock"
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # Its last owner may have removed the file between our opening and locking it.
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()
