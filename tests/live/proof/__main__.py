"""
The live proof, for people.

    python -m tests.live.proof                   each fault once, in half a minute
    python -m tests.live.proof --minutes 10      50 users, then faults drawn at random
    python -m tests.live.proof --minutes 10 --seed 7
"""

# ruff: noqa: T201 - it talks to people
from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from time import monotonic

from lakebase.local import LocalLakebase

from .run import SHORT, Plan, Run


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0 if it is proven."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.live.proof", description="What the pools promise, under fire."
    )
    parser.add_argument("--minutes", type=float, help="how long; without, a short form of it")
    parser.add_argument("--users", type=int, help="how many (50; 12 in the short form)")
    parser.add_argument("--seed", type=int, default=1, help="which faults and requests are drawn")
    parser.add_argument("--postgres", default="auto", help="auto, embedded, system, docker, or a directory")
    given = parser.parse_args(arguments)
    plan = SHORT if given.minutes is None else Plan(minutes=given.minutes)
    plan = dataclasses.replace(plan, seed=given.seed, users=given.users or plan.users)
    # The pools warn of each outage, rightly; here outages are what is wanted.
    logging.getLogger("lakebase").setLevel(logging.ERROR)
    begin = monotonic()
    with LocalLakebase(postgres=given.postgres) as lake:
        if lake.pooled_host is None:
            print(f"Without a pooler: {lake.why_no_pooler}", flush=True)

        def say(line: str) -> None:
            print(f"{monotonic() - begin:6.1f}  {line}", flush=True)

        outcome = Run(lake, plan, say=say).go()
    print(f"\n{outcome.text()}")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
