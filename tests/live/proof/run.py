"""A run of the proof: load, one fault after the other, and the count at the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from lakebase.local import LocalLakebase
from lakebase.local.errors import LocalLakebaseError

from .faults import FAULTS, Target, nothing
from .load import Load, LoopLoad, ThreadLoad
from .record import Phase, Record
from .setup import Setup


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    The size and length of a run.

    Args:
        users: Number of users, each with its own token.
        threads: Requests at once on the manager for threads.
        tasks: Requests at once on the manager for asyncio.
        budget: Connections of either manager, its app's pool included.
        outage: Seconds that an outage lasts.
        timeout: Seconds that a borrower may wait. Longer than any outage.
        rounds: Requests that each worker at least has answered after each fault.
        closing: Seconds within which all connections are closed after the end.
        minutes: How long to draw faults at random; `None` runs each once, in order.
        seed: Seed of the random choices.
    """

    users: int = 50
    threads: int = 12
    tasks: int = 24
    budget: int = 16
    outage: float = 1.0
    timeout: float = 30.0
    rounds: int = 3
    closing: float = 10.0
    minutes: float | None = None
    seed: int = 1


SHORT = Plan(users=12, threads=5, tasks=8, budget=6, outage=0.4, timeout=20.0, rounds=2)


@dataclass
class Outcome:
    """
    The result of a run.

    Attributes:
        violations: Promises that were not kept; empty if the proof holds.
        peaks: The server's count of open connections at its highest up to each second.
        not_run: Faults that this machine cannot have, and why.
    """

    plan: Plan
    seconds: float = 0.0
    phases: list[Phase] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    answered: int = 0
    peaks: list[int] = field(default_factory=list)
    logins: int = 0
    minted: int = 0
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def allowed(self) -> int:
        return 2 * self.plan.budget

    def text(self) -> str:
        """The outcome for people."""
        plan = self.plan
        head = ("fault", "times", "requests", "killed", "repeated", "refused", "longest wait", "longest request")
        lines = ["{:<20} {:>5} {:>9} {:>7} {:>9} {:>8} {:>13} {:>16}".format(*head)]
        lines += [
            f"{each.name:<20} {each.runs:>5} {each.requests:>9,} {each.interrupted:>7} {each.repeated:>9} "
            f"{each.turned_away:>8} {each.longest_wait:>11.2f} s {each.longest:>14.2f} s"
            for each in self.phases
        ]
        lines += [f"{name:<20} not run: {why}" for name, why in self.not_run.items()]
        lines.append(
            f"\n{self.answered:,} requests of {plan.users} users, the app and the pooler's roles answered in "
            f"{self.seconds:.0f} s, seed {plan.seed}\n"
            f"{self.logins:,} logins, {self.minted:,} credentials minted; at most {max(self.peaks, default=0)} "
            f"connections at once by the server's count, {self.allowed} allowed"
        )
        lines += self.violations
        lines.append(f"NOT PROVEN: {len(self.violations)} violations" if self.violations else "proven: no violation")
        return "\n".join(lines)


class Run:
    """
    One run on a separate local Lakebase.

    Args:
        lake: A started local Lakebase that only this run uses.
        say: Called with a line after each fault.
    """

    def __init__(self, lake: LocalLakebase, plan: Plan, *, say: Callable[[str], None] = lambda line: None) -> None:
        self.plan = plan
        self.say = say
        self.lake = lake
        self.setup = Setup(lake, users=plan.users, seed=plan.seed, timeout=plan.timeout)
        self.before = lake.stats()
        self.loads: list[Load] = [
            ThreadLoad(self.setup, workers=plan.threads, budget=plan.budget),
            LoopLoad(self.setup, workers=plan.tasks, budget=plan.budget),
        ]
        names = [name for load in self.loads for name in load.names]
        self.record = Record(names, patience=2 * plan.timeout)
        self.target = Target(self.setup, self.record, self.loads, plan.outage, random.Random(plan.seed))
        self.outcome = Outcome(plan)
        self._is_over = threading.Event()

    def go(self, faults: Mapping[str, Callable[[Target], None]] | None = None) -> Outcome:
        """Run it to its end, with these faults instead of the plan's. Blocks till then."""
        begin = monotonic()
        for load in self.loads:
            load.start(self.record)
        watch = threading.Thread(target=self._watch, name="proof-watch")
        watch.start()
        try:
            self._phase("nothing", nothing)
            for name, fault in self._drawn(begin) if faults is None else faults.items():
                self._phase(name, fault)
            self._phase("nothing", nothing)
            for load in self.loads:
                load.join()
            self._count_before_closing()
        finally:
            self._is_over.set()
            watch.join()
            for load in self.loads:
                load.is_over = True
                load.close(self.plan.closing)
        self._count_after_closing()
        self.outcome.seconds = monotonic() - begin
        return self._judged()

    def _drawn(self, begin: float) -> Iterable[tuple[str, Callable[[Target], None]]]:
        faults = dict(FAULTS)
        if not self.setup.pooled:
            del faults["pooler restarts"]
            self.outcome.not_run["pooler restarts"] = f"there is no pooler: {self.lake.why_no_pooler}"
        yield from faults.items()
        drawn = tuple(faults.items())
        while self.plan.minutes is not None and monotonic() - begin < 60 * self.plan.minutes:
            yield self.target.dice.choice(drawn)

    def _phase(self, name: str, fault: Callable[[Target], None]) -> None:
        begin = monotonic()
        phase = self.record.enter(name)
        try:
            fault(self.target)
        except LocalLakebaseError as error:
            self.record.violate(f"the fault did not come about: {error}")
        for _ in range(self.plan.rounds):
            self.record.wait_for_all()
        self.say(
            f"{name:<20} {monotonic() - begin:5.1f} s {phase.requests:>7,} requests {phase.interrupted:>4} killed, "
            f"longest wait {phase.longest_wait:5.2f} s, {len(self.record.violations)} violations"
        )

    # What the server and the client count

    def _watch(self) -> None:
        while True:
            self.outcome.peaks.append(self.lake.stats().peak)
            if self._is_over.wait(1.0):
                return

    def _count_before_closing(self) -> None:
        for load in self.loads:
            self._comes_true(lambda load=load: self._still_out(load))
        self._comes_true(self._unknown)

    def _still_out(self, load: Load) -> str:
        stats, app, budget = load.manager.stats(), load.app_pool.get_stats(), load.manager.budget
        if stats.borrowed or stats.pending or app["requests_waiting"] or app["pool_available"] < app["pool_size"]:
            return f"leaked: the {load.side}s' pools still have borrowers: {stats}, {app}"
        held = stats.connections + app["pool_size"]
        return "" if held == budget.used else f"leaked: {held} connections in the {load.side}s' pools, {budget!r}"

    def _unknown(self) -> str:
        known, there = sum(load.manager.budget.used for load in self.loads), self.lake.stats().open
        return "" if there <= known else f"leaked: {there} connections at the server, {known} known to the pools"

    def _count_after_closing(self) -> None:
        try:
            self.lake.wait_for_connections(0, timeout=self.plan.closing)
        except LocalLakebaseError as error:
            self.record.violate(f"leaked: after closing, {error}")
        self._comes_true(self._left)
        for load in self.loads:
            if load.manager.budget.used or load.manager.stats().connections:
                self.record.violate(f"leaked: after closing, {load.manager!r}")

    def _left(self) -> str:
        left = self.setup.server_processes()
        return f"leaked: Postgres still has {left} processes for connections" if left else ""

    def _comes_true(self, objection: Callable[[], str]) -> None:
        """Note what is objected to, unless that is over in time: connections end in the background."""
        deadline, again = monotonic() + self.plan.closing, threading.Event()
        while (text := objection()) and monotonic() < deadline:
            again.wait(0.02)
        if text:
            self.record.violate(text)

    def _judged(self) -> Outcome:
        outcome, record, stats = self.outcome, self.record, self.lake.stats()
        outcome.peaks.append(stats.peak)
        if stats.peak > outcome.allowed:
            record.violate(f"over budget: {stats.peak} connections at the server, {outcome.allowed} allowed")
        entries = self.setup.entries()
        for request, user in record.answered.items():
            if entries.get(request) != user:
                record.violate(
                    f"lost: {request} of {user!r} was answered and is in the database as {entries.get(request)!r}"
                )
        outcome.logins, outcome.minted = stats.total - self.before.total, stats.minted - self.before.minted
        outcome.answered, outcome.phases = len(record.answered), record.by_fault()
        outcome.violations = record.violations
        return outcome
