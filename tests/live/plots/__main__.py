"""
Draws what the pools do in real runs on a local Lakebase.

    python -m tests.live.plots docs                  all runs, half a minute; docs/run-budget.png and others
    python -m tests.live.plots docs --only kill
"""

# ruff: noqa: T201 - it talks to people
from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from lakebase.local import LocalLakebase

from .draw import draw, summary
from .run import Run
from .story import STORIES


def main(arguments: list[str] | None = None) -> int:
    """Run and draw; 0 if all pictures were written."""
    parser = argparse.ArgumentParser(prog="python -m tests.live.plots", description=__doc__.strip().partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--only", choices=STORIES, help="one of them")
    given = parser.parse_args(arguments)
    # The pools warn of each outage, rightly; here outages are what is wanted.
    logging.getLogger("lakebase").setLevel(logging.ERROR)
    for name, story in STORIES.items():
        if given.only not in {None, name}:
            continue
        users = [f"user{number}@corp.example" for number in range(1, len(story.arrivals) + 1)]
        with LocalLakebase(pooler="off") as lake:
            run = Run(lake, users, story.max_total)
            asyncio.run(run.play(story))
        path = given.folder / f"run-{name}.png"
        draw(story, run, path)
        print(f"{path}: {summary(run)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
