"""
Side by side with AppKit, whose LakebasePoolManager runs on Node: the same local Lakebase, users and requests for both.

Each turn is a fresh process, of Node or of Python. This process runs the local Lakebase, and nothing else meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import npm
from .measure import BenchmarkError, Figures, Metric, Race, Racer, Scale, Target
from .postgres import lake

APPKIT = "AppKit on Node"
OURS_ASYNC = "AsyncLakebasePoolManager"
OURS_UVLOOP = "AsyncLakebasePoolManager, uvloop"
OURS = "LakebasePoolManager"
HERE = Path(__file__).parent
PER_USER = 3
SERVER, BUDGET = 100, 90  # connections that the server takes, and that an app on it would use
PATIENCE = 120.0  # seconds for one process
CAN_BE_KEPT_ON_A_CORE = hasattr(os, "sched_setaffinity")
CAN_HAVE_UVLOOP = sys.platform != "win32"

START = Metric("start", "process start and imports", "ms", 1e3)
FIRST = Metric("first", "first answer", "ms", 1e3)
HALF = Metric("half", "half of the answers", "ms", 1e3)
LAST = Metric("last", "last answer", "ms", 1e3)
RATE = Metric("rate", "answers per second", "", more_is_better=True)
WARM = Metric("warm", "in the second half", "", more_is_better=True)
LONGEST = Metric("longest", "slowest answer", "ms", 1e3)
LOGINS = Metric("logins", "logins", "")
FAILED = Metric("failed", "failed", "")


@dataclass(frozen=True)
class Load:
    """
    What a process is asked to do.

    Args:
        users: How many there are.
        draws: The number of the user of each request.
        at_a_time: Requests at once.
        idle_before: Seconds between making the manager and the first request.
    """

    users: int
    draws: Sequence[int]
    at_a_time: int
    idle_before: float = 0.0

    @classmethod
    def drawn(cls, users: int, requests: int, at_a_time: int) -> Load:
        """Requests of users at random: the same in every run."""
        return cls(users, random.Random(1).choices(range(users), k=requests), at_a_time)

    @classmethod
    def first_requests(cls, users: int, idle_before: float) -> Load:
        """One request of each user, all at once."""
        return cls(users, range(users), users, idle_before)


@dataclass(frozen=True)
class Side:
    """A kind of process: its command, and what its environment has besides."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_ours: bool


def on_one_core(side: Side) -> Side:
    """The same, with all its threads on one core."""
    return replace(side, name=f"{side.name}, on one core", command=[*side.command, "one-core"])


class Stage:
    """
    A local Lakebase with users, on which processes take turns.

    Args:
        node: Runs AppKit.
        modules: Where npm has put AppKit.
    """

    def __init__(self, running: Any, users: int, node: npm.Node, modules: Path) -> None:
        self._lake = running
        names = [f"user{number}@corp.example" for number in range(users)]
        self._users = [
            {"name": name, "token": running.add_user(name), "password": running.mint(name)} for name in names
        ]
        self.appkit_version = f"AppKit {npm.APPKIT} on Node {node.version}"
        trust = {"NODE_EXTRA_CA_CERTS": str(running.ca_file), "PGSSLMODE": "require"}
        ours = [sys.executable, "-m", f"{__package__}.manager_process"]
        self.appkit = Side(APPKIT, [node.path, str(HERE / "appkit_process.mjs"), str(modules)], trust, is_ours=False)
        self.asyncio = Side(OURS_ASYNC, [*ours, "asyncio"], {}, is_ours=True)
        self.uvloop = Side(OURS_UVLOOP, [*ours, "uvloop"], {}, is_ours=True)
        self.threads = Side(OURS, [*ours, "threads"], {}, is_ours=True)
        self.alone = [
            Side(f"psycopg alone, {front_end}", [*ours, front_end, "alone"], {}, is_ours=False)
            for front_end in ("asyncio", "threads")
        ]

    def rehearse(self) -> None:
        """Have Python compile all modules, as pip does with those that it installs."""
        self.run(self.threads, Load.first_requests(1, 0.0), None)

    def racer(self, side: Side, load: Load, max_total: int | None = None) -> Racer:
        """One side under one load."""
        name = side.name if max_total is None else f"{side.name}, max_total={max_total}"
        return Racer(name, lambda _: self.run(side, load, max_total), side.is_ours)

    def run(self, side: Side, load: Load, max_total: int | None) -> Figures:
        """Start a process, wait for its end, and say how it went."""
        self._lake.wait_for_connections(0)
        before = self._lake.stats().total
        spawned = time.time()
        report = run_process(side, self._given(load, max_total))
        start = report["began"] - spawned - load.idle_before
        return {START.key: start, LOGINS.key: self._lake.stats().total - before, **figures(report)}

    def _given(self, load: Load, max_total: int | None) -> str:
        return json.dumps(
            {
                "host": self._lake.host,
                "port": self._lake.port,
                "database": self._lake.database,
                "endpoint": self._lake.endpoint,
                "workspace_url": self._lake.workspace_url,
                "ca_file": str(self._lake.ca_file),
                "users": self._users[: load.users],
                "draws": list(load.draws),
                "at_a_time": load.at_a_time,
                "idle_before": load.idle_before,
                "max_size": PER_USER,
                "max_total": max_total,
            }
        )


def run_process(side: Side, given: str) -> dict[str, Any]:
    """
    What a process reports.

    Raises:
        BenchmarkError: It failed, or did not end.
    """
    left_out = ("DATABRICKS_", "LAKEBASE_", "PG", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    try:
        ended = subprocess.run(
            side.command,
            input=given,
            env={**inherited, **side.environment},
            cwd=HERE.parents[1],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"the process of {side.name} did not end within {PATIENCE:g} s") from error
    if ended.returncode != 0:
        last = "\n".join(ended.stderr.strip().splitlines()[-8:])
        raise BenchmarkError(f"the process of {side.name} ended with {ended.returncode}. Its last words:\n{last}")
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def figures(report: Mapping[str, Any]) -> Figures:
    """The figures of requests, from when each was asked and answered."""
    answers = sorted(answered for _, answered in report["answered"])
    found = {FAILED.key: float(sum(report["errors"].values()))}
    if len(answers) > 1:
        middle = len(answers) // 2
        found |= {
            FIRST.key: answers[0],
            HALF.key: statistics.median(answers),
            LAST.key: answers[-1],
            RATE.key: len(answers) / answers[-1],
            WARM.key: (len(answers) - middle) / (answers[-1] - answers[middle - 1]),
            LONGEST.key: max(answered - asked for asked, answered in report["answered"]),
        }
    return found


# --- the races -------------------------------------------------------------------------------------------------------


def tell(text: str) -> None:
    """A line for people who wait."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def on_stage(users: int, race: Callable[[Stage], Race]) -> Iterator[Race]:
    """
    A race on a local Lakebase of its own.

    Raises:
        BenchmarkError: There is no Node, or AppKit cannot be installed.
    """
    node, modules = npm.find_node(), npm.install(tell)
    with lake(max_connections=SERVER) as running:
        stage = Stage(running, users, node, modules)
        stage.rehearse()
        yield race(stage)


def first_requests(name: str, idle_before: float, when: str, scale: Scale) -> AbstractContextManager[Race]:
    users = scale.pick(60, 60, 4)
    load = Load.first_requests(users, idle_before)
    return on_stage(
        users,
        lambda stage: Race(
            name,
            f"{users} users' first requests at once{when}",
            "Counted from the first call: each side mints a credential for each user, connects and selects 1. "
            f"{stage.appkit_version}.",
            [stage.racer(side, load) for side in (stage.appkit, stage.asyncio, stage.threads)],
            metrics=(LAST, HALF, FIRST, START, LOGINS, FAILED),
            reference=APPKIT,
            repetitions=1,
            rounds=scale.pick(7, 3, 1),
            targets=[Target(LAST.key, ours, 1.0, APPKIT) for ours in (OURS_ASYNC, OURS)],
        ),
    )


def first(scale: Scale) -> AbstractContextManager[Race]:
    """The first requests to a process that has just started."""
    return first_requests("first", 0.0, "", scale)


def first_later(scale: Scale) -> AbstractContextManager[Race]:
    """The first requests to an app that has started."""
    idle_before = scale.pick(2, 2, 0)
    return first_requests("first-later", idle_before, f", {idle_before} s after the manager was made", scale)


def steady(scale: Scale) -> AbstractContextManager[Race]:
    """Many requests of some users, with and without a budget."""
    users, requests, at_a_time = 20, scale.pick(6000, 6000, 100), 40
    load = Load.drawn(users, requests, at_a_time)

    def race(stage: Stage) -> Race:
        ours = [stage.asyncio, *([stage.uvloop] if CAN_HAVE_UVLOOP else []), stage.threads]
        if CAN_BE_KEPT_ON_A_CORE:
            ours += map(on_one_core, ours.copy())
        return Race(
            "steady",
            f"{users} users, {at_a_time} requests at a time",
            f"{requests:,} times select 1 in autocommit mode, cold start included; {PER_USER} connections per user. "
            f"{stage.appkit_version}; it has no limit for all users together. psycopg alone has no pool: each of the "
            f"{at_a_time} opens a connection with a password it was given, and keeps it.",
            [stage.racer(side, load) for side in (stage.appkit, *ours, *stage.alone)]
            + [stage.racer(side, load, budget) for budget in (50, 40) for side in (stage.asyncio, stage.threads)],
            metrics=(RATE, WARM, LOGINS, LONGEST, FAILED),
            reference=APPKIT,
            repetitions=1,
            rounds=scale.pick(5, 1, 1),
            targets=[Target(RATE.key, side.name, 1.0, APPKIT) for side in ours],
        )

    return on_stage(users, race)


def crowded(scale: Scale) -> AbstractContextManager[Race]:
    """More users than the server takes connections."""
    users, requests, at_a_time = 200, scale.pick(3000, 3000, 100), 100
    load = Load.drawn(users, requests, at_a_time)
    return on_stage(
        users,
        lambda stage: Race(
            "crowded",
            f"{users} users on a server of {SERVER} connections",
            f"{requests:,} times select 1 in autocommit mode, {at_a_time} at a time, cold start included; {PER_USER} "
            f"connections per user. {stage.appkit_version}.",
            [stage.racer(side, load) for side in (stage.appkit, stage.asyncio, stage.threads)]
            + [stage.racer(side, load, BUDGET) for side in (stage.asyncio, stage.threads)],
            metrics=(FAILED, RATE, LOGINS, LONGEST),
            drawn=FAILED.key,
            repetitions=1,
            rounds=scale.pick(3, 1, 1),
            targets=[Target(FAILED.key, ours, 0) for ours in (OURS_ASYNC, OURS)],
        ),
    )
