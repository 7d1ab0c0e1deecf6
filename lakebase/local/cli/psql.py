"""`lakebase local psql`: a prompt as a user of one that runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LocalLakebaseError
from ..order_client import send_order
from ..registry import find_record

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Become psql."""
    from ..postgres import environment_without_libpq, find_binaries

    record = find_record(arguments.name)
    user = arguments.user or record.admin
    # This order adds the user, if missing.
    found = send_order(record.orders_address, record.orders_token, "environment", client="psql", user=user)
    environment = found["variables"]
    program = shutil.which("psql")
    if program is None:
        program = str(find_binaries().joinpath("psql"))
        if not record.run_dir or not Path(program).exists():
            raise LocalLakebaseError(
                "there is no psql on the PATH: on Debian and Ubuntu it is in the package postgresql-client"
            )
        print("# No psql on the PATH: the embedded one, which has no TLS, straight to Postgres", file=sys.stderr)
        environment = {
            "PGHOST": record.run_dir,
            "PGPORT": "5432",
            "PGDATABASE": record.database,
            "PGSSLMODE": "disable",
            "PGUSER": user,
        }
    sys.stdout.flush()
    os.execve(  # noqa: S606
        program, [program, *arguments.arguments], {**environment_without_libpq(os.environ), **environment}
    )
