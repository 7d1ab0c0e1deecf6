"""
Extensions that a user of Lakebase can create and a user of a plain Postgres cannot.

From release 18 on Postgres looks for extensions in further directories. Ours has Lakebase's own, and copies of those
that Postgres would let only a superuser create.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from .roles import CREATE_ROLE_OBJECTS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["preloaded_libraries", "write_extensions"]

_AUTH_CONTROL = """\
comment = 'Roles for the identities of a local Lakebase'
default_version = '1.0'
relocatable = true
trusted = true
"""
# Those that Lakebase offers, and that Postgres does not trust to every owner of a database.
_ALLOWED = ("earthdistance", "pg_stat_statements", "postgres_fdw", "vector")
# An extension's objects belong to Postgres' own superuser, whom Lakebase's users are not.
_GRANTS = {"postgres_fdw": "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO databricks_superuser;"}
_PRELOADED = "pg_stat_statements"


def write_extensions(directory: Path, binaries: Path | None) -> None:
    """
    Write the extensions for a Postgres whose `extension_control_path` begins with that directory.

    Args:
        directory: Made here.
        binaries: Of the Postgres; its own extensions are beside it, or not copied.
    """
    target = directory / "extension"
    target.mkdir(mode=0o700, parents=True)
    (target / "databricks_auth.control").write_text(_AUTH_CONTROL, encoding="utf-8")
    (target / "databricks_auth--1.0.sql").write_text(CREATE_ROLE_OBJECTS, encoding="utf-8")
    if binaries is None:
        return
    for name in _ALLOWED:
        control = binaries.parent / "share" / "extension" / f"{name}.control"
        if control.is_file():
            _copy_trusted(control, target)


def _copy_trusted(control: Path, target: Path) -> None:
    name = control.stem
    text = control.read_text(encoding="utf-8")
    (target / control.name).write_text(f"{text}\ntrusted = true\n", encoding="utf-8")
    for script in control.parent.glob(f"{name}--*.sql"):
        copied = target / script.name
        shutil.copyfile(script, copied)
        if name in _GRANTS and script.stem.count("--") == 1:  # what begins; the others upgrade from one to another
            with copied.open("a", encoding="utf-8") as file:
                file.write(f"\n{_GRANTS[name]}\n")


def preloaded_libraries(binaries: Path) -> str:
    """What `shared_preload_libraries` is on Lakebase, as far as this Postgres has it."""
    found = any((binaries.parent / "lib" / f"{_PRELOADED}{ending}").is_file() for ending in (".so", ".dylib"))
    return _PRELOADED if found else ""
