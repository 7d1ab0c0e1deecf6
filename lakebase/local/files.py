"""Files and directories that belong to this user alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LocalLakebaseError

__all__ = ["lock_data_dir", "make_private_directory", "name_data_dir_in_errors", "write_private"]

# sockaddr_un has room for 103 bytes on macOS and 107 on Linux, and the name of the socket itself takes 15.
_LONGEST_DIRECTORY = 85


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read. A reader finds either the old file or the new one, complete."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def make_private_directory() -> Path:
    """A new temporary directory, whose path is short enough for a Unix socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="lakebase-"))
    if len(str(directory)) > _LONGEST_DIRECTORY:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="lakebase-", dir="/tmp"))
    return directory


@contextmanager
def name_data_dir_in_errors(data_dir: Path | None) -> Iterator[None]:
    """Turn an error of the operating system into one that names the directory that the caller gave, if any."""
    try:
        yield
    except OSError as error:
        if data_dir is None:
            raise
        raise LocalLakebaseError(
            f"data_dir={str(data_dir)!r} cannot be used: {error.strerror or error}. Give a directory that belongs to "
            "this user, or one that can be made"
        ) from error


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """
    Keep every other local Lakebase out of the directory.

    Raises:
        LocalLakebaseError: Another one uses it.
    """
    import fcntl

    with (data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalLakebaseError(
                f"data_dir={str(data_dir)!r} is in use by another local Lakebase: stop that one, or give another"
            ) from error
        yield
