"""A data directory as `initdb` makes it, kept for processes that make many: a copy takes a fifth of the time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["fill_from_template"]

_VARIABLE = "LAKEBASE_LOCAL_TEMPLATES"


def fill_from_template(data: Path, initdb: Path, initialise: Callable[[], None]) -> None:
    """
    Make a data directory: a copy of the template in the directory that `LAKEBASE_LOCAL_TEMPLATES` names, or a new one.

    Without the variable nothing is kept. The first server of each Postgres makes the template; several processes may do
    so at once.

    Args:
        data: Exists, and is empty.
        initdb: The program, which tells one Postgres from another.
        initialise: Runs it.
    """
    templates = os.environ.get(_VARIABLE)
    if not templates:
        initialise()
        return
    changed = initdb.stat().st_mtime_ns
    template = Path(templates, hashlib.sha256(f"{initdb}:{changed}".encode()).hexdigest()[:16])
    if template.exists():
        shutil.copytree(template, data, dirs_exist_ok=True)
        return
    initialise()
    template.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f"{template.name}-", dir=template.parent))
    shutil.copytree(data, half, dirs_exist_ok=True)
    try:
        half.rename(template)
    except OSError:  # another process has made it meanwhile
        shutil.rmtree(half, ignore_errors=True)
