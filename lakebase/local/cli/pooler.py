"""`lakebase local get-pooler`: fetches a PgBouncer that is new enough to behave as Lakebase's pooler does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LocalLakebaseError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `run()`."""
    parser.description = (
        "Fetch a PgBouncer of version 1.21 or newer, unless there is one, and put it where a local Lakebase finds it. "
        "It is Debian's package, fetched and verified by apt on Debian and Ubuntu; neither packages nor libraries of "
        "the system are touched. On macOS use `brew install pgbouncer`."
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, default=None, help="where to put it (default: in the user's cache)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the script that fetches it, and return 0 if there is one now."""
    from ..postgres import GET_POOLER_SCRIPT, pooler_folder

    bash = shutil.which("bash")
    if bash is None:
        raise LocalLakebaseError("there is no bash on the PATH, which fetching a PgBouncer needs")
    target = pooler_folder() if arguments.directory is None else arguments.directory
    return subprocess.run([bash, str(GET_POOLER_SCRIPT), str(target)], check=False).returncode
