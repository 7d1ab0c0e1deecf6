"""The local Lakebases that this user runs from a command line: each has a record for as long as it runs."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import LocalLakebaseError
from .files import write_private

__all__ = ["DEFAULT_NAME", "Claim", "Record", "claim_name", "find_record", "find_records"]

DEFAULT_NAME = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, repr=False)
class Record:
    """
    What other commands need to know of a running local Lakebase.

    Attributes:
        orders_address: Where it takes orders.
        orders_token: What an order must carry.
        run_dir: The directory of Postgres' socket.
    """

    name: str
    pid: int
    orders_address: str
    orders_token: str
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


class Claim:
    """A name that belongs to this process while it holds the lock on the name's file, at most until it dies."""

    def __init__(self, name: str, lock: Any) -> None:
        self.name = name
        self._lock = lock

    def publish(self, record: Record) -> None:
        """Let other commands find it."""
        write_private(_folder() / f"{self.name}.json", json.dumps(asdict(record)))


@contextmanager
def claim_name(name: str | None) -> Iterator[Claim]:
    """
    A name for a local Lakebase, and the removal of its record afterwards.

    Args:
        name: `None` takes the first free one of `local`, `local-2`, ….

    Raises:
        LocalLakebaseError: Another local Lakebase has it.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise LocalLakebaseError(f"{name!r} is no name: use letters, digits, '.', '_' and '-', at most 64")
    number = 1
    while True:
        candidate = name or (DEFAULT_NAME if number == 1 else f"{DEFAULT_NAME}-{number}")
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
            pass  # other local Lakebases run


def find_records() -> list[Record]:
    """The records of those that run now, by name. The files of one that was killed are removed."""
    folder, found = _folder(create=False), []
    for path in sorted(folder.glob("*.json")):
        lock = _lock(path.stem)
        if lock is None:
            try:
                found.append(Record(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue  # it has just ended, or another version of this library runs it
        else:
            for suffix in (".json", ".lock"):
                path.with_suffix(suffix).unlink(missing_ok=True)
            lock.close()
    return sorted(found, key=lambda record: record.name)


def find_record(name: str | None = None) -> Record:
    """
    The record of the one that is named, else of the only one.

    Raises:
        LocalLakebaseError: There is none, or several of them.
    """
    running = find_records()
    names = ", ".join(record.name for record in running)
    if name is not None:
        for record in running:
            if record.name == name:
                return record
        raise LocalLakebaseError(f"no local Lakebase {name!r} runs ({f'there run: {names}' if names else 'none does'})")
    if not running:
        raise LocalLakebaseError("no local Lakebase runs: `lakebase local up` starts one")
    if len(running) > 1:
        raise LocalLakebaseError(f"several local Lakebases run ({names}): say which, as --name {running[0].name}")
    return running[0]


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
    """The lock file, open and locked; `None` if another process holds the lock."""
    import fcntl

    path = _folder() / f"{name}.lock"
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # The last owner may have removed the file after this process opened it and before it locked it.
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()
