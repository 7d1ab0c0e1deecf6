"""Node, and the npm packages that a benchmark needs: installed once, into the user's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .measure import BenchmarkError

APPKIT, LAKEBASE = "0.38.1", "0.6.0"
OLDEST_NODE = 20

MANIFEST = {
    "private": True,
    "dependencies": {"@databricks/appkit": APPKIT, "@databricks/lakebase": LAKEBASE},
    "overrides": {"@databricks/lakebase": LAKEBASE},  # AppKit itself asks for an older one
}
GET_NODE = f"Install Node {OLDEST_NODE} or newer, which has npm with it: https://nodejs.org/en/download"


class Node(NamedTuple):
    """An installed Node."""

    path: str
    version: str


def find_node() -> Node:
    """
    The Node on the PATH.

    Raises:
        BenchmarkError: There is none, or it is too old.
    """
    path = find_program("node")
    printed = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = printed.strip().removeprefix("v")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_NODE:
        raise BenchmarkError(f"{path} is Node {version or '?'}, and AppKit needs a newer one. {GET_NODE}")
    return Node(path, version)


def find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BenchmarkError(f"AppKit runs on Node, and there is no {name} on the PATH. {GET_NODE}")
    return found


def cache_folder() -> Path:
    """Where these versions of the packages are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "lakebase-pooling", f"appkit-{APPKIT}-lakebase-{LAKEBASE}")


def install(say: Callable[[str], object]) -> Path:
    """
    The folder of the installed packages. Blocks for about half a minute the first time.

    An interrupted installation leaves nothing behind: the folder appears when it is complete.

    Raises:
        BenchmarkError: There is no npm, or it failed.
    """
    folder = cache_folder()
    if folder.exists():
        return folder / "node_modules"
    npm = find_program("npm")
    say(f"installing AppKit {APPKIT} with npm into {folder} (170 MB, once; half a minute)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="installing-", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        fresh = Path(temporary, "packages")
        fresh.mkdir()
        (fresh / "package.json").write_text(json.dumps(MANIFEST, indent=1), encoding="utf-8")
        run_npm(npm, fresh)
        fresh.rename(folder)
    return folder / "node_modules"


def run_npm(npm: str, folder: Path) -> None:
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--loglevel=error"]
    ended = subprocess.run([npm, "install", *options], cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last = "\n".join((ended.stderr or ended.stdout).strip().splitlines()[-8:])
        raise BenchmarkError(
            f"npm could not install AppKit {APPKIT} and ended with {ended.returncode}. It needs the registry that "
            f"`npm config get registry` names. Its last words:\n{last}"
        )
