"""
Actors of Ray that share one limit: `python ray_actors.py`, or `ray job submit -- python ray_actors.py`.

Each actor has a pool of its own. The nodes have the environment of an app.
"""

import sys

import ray

from lakebase import create_lakebase_pool
from pooling import SharedBudget
from pooling.leases import RayLeases


class Writer:  # a class below `@serve.deployment` looks the same
    def __init__(self, budget: SharedBudget) -> None:
        self.pool = create_lakebase_pool(budget=budget, timeout=300)  # seconds: a call may wait

    def write(self, number: int) -> int:
        """Write a row; which session of the server has done it."""
        with self.pool.connection() as conn:
            conn.execute("insert into numbers values (%s, %s)", [number, number**2])
            return conn.info.backend_pid

    def close(self) -> None:
        self.pool.close()  # the places are free at once; those of an actor that is killed, within `lease_ttl`


def main() -> None:
    ray.init()  # RAY_ADDRESS says where; without it, a cluster of this machine
    budget = SharedBudget(2, RayLeases())
    with create_lakebase_pool(budget=budget) as pool, pool.connection() as conn:
        conn.execute("create table if not exists numbers (number int, square int)")
    writers = [ray.remote(num_cpus=0)(Writer).remote(budget) for _ in range(3)]
    sessions = ray.get([writers[number % 3].write.remote(number) for number in range(60)])
    ray.get([writer.close.remote() for writer in writers])
    sys.stdout.write(f"60 rows, {len(set(sessions))} sessions\n")


if __name__ == "__main__":
    main()
