"""
Processes of `multiprocessing` that share one limit: `python worker_processes.py [fork | spawn | forkserver]`.

They agree in a directory of this host, which the variable LEASES names.
"""

import multiprocessing
import os
import sys

from lakebase import create_lakebase_pool
from pooling import SharedBudget
from pooling.leases import FileLeases

# Made when the module is imported, which each process does, or inherits. A child begins with an empty pool.
budget = SharedBudget(3, FileLeases(os.environ.get("LEASES", ".leases")))
pool = create_lakebase_pool(budget=budget, timeout=300)  # seconds: a job may wait


def load(number: int) -> int:
    """One job: write a row; which session of the server has done it."""
    with pool.connection() as conn:
        conn.execute("insert into numbers values (%s, %s)", [number, number**2])
        return conn.info.backend_pid


def main(method: str | None = None) -> None:
    with pool.connection() as conn:
        conn.execute("create table if not exists numbers (number int, square int)")
        own = conn.info.backend_pid
    with multiprocessing.get_context(method).Pool(5) as processes:
        others = processes.map(load, range(60), chunksize=1)
    pool.close()
    sys.stdout.write(f"60 rows, {len(set(others))} sessions, the parent's among them: {own in others}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
