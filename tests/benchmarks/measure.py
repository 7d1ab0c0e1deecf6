"""
Rounds, ratios and targets.

Figures of a shared machine drift by more than the differences looked for. So all racers of a race
take turns, A B C, B C A, C A B, …, and a ratio is taken within each round, between neighbours in
time; what is reported is the median of those ratios and their quartiles.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Figures = Mapping[str, float]


class BenchmarkError(Exception):
    """A benchmark cannot be run here; the message says what to do about it."""


@dataclass(frozen=True)
class Scale:
    """How long a run takes: rounds of each race, and seconds of each racer's turn."""

    rounds: int = 25
    turn: float = 0.04
    quick: bool = False
    tiny: bool = False  # just enough to see that all of it works

    def pick(self, full: int, quick: int, tiny: int) -> int:
        """A size for this run."""
        return tiny if self.tiny else quick if self.quick else full


FULL = Scale()
QUICK = Scale(rounds=5, turn=0.01, quick=True)
TINY = Scale(rounds=1, turn=0.0002, quick=True, tiny=True)


@dataclass(frozen=True)
class Metric:
    """One figure of a race. `scale` brings it to `unit`."""

    key: str
    title: str
    unit: str
    scale: float = 1.0
    more_is_better: bool = False


PER_USE = Metric("seconds", "per use", "µs", 1e6)


@dataclass(frozen=True)
class Racer:
    """
    One contender.

    Args:
        run: Given a number of repetitions, the figures by metric; `seconds` are per repetition.
        is_ours: Whether it is of this library.
    """

    name: str
    run: Callable[[int], Figures]
    is_ours: bool = False


@dataclass(frozen=True)
class Target:
    """
    What ours is to reach.

    Args:
        ours, peer: Racers. Without a peer the limit is one of the figure itself.
        limit: For ours divided by the peer's; with `times_faster`, for the peer's divided by ours. It is the least
            that is wanted if more is better, and the most otherwise.
        aim: Better than the limit, and what is hoped for.
    """

    metric: str
    ours: str
    limit: float
    peer: str | None = None
    times_faster: bool = False
    aim: float | None = None
    unit: str = ""


@dataclass
class Race:
    """
    Contenders for one task.

    Args:
        name: For `--only`.
        title: What is raced in.
        note: What a figure is measured of.
        reference: The racer that the others' ratios are to; `None` where a figure says all by itself.
        repetitions: Of one turn; calibrated to last `turn` seconds if `None`.
        rounds, turn: By default the scale's.
        drawn: Metric for the picture, as it is; by default the first one, as ratio to the reference.
        in_order: Whether the racers are shown in their order; by default the best is first.
        is_exact: Whether a figure does not vary, so that one round does.
        missing: Contenders that are not installed or cannot run here, and why.
    """

    name: str
    title: str
    note: str
    racers: Sequence[Racer]
    metrics: Sequence[Metric] = (PER_USE,)
    reference: str | None = None
    targets: Sequence[Target] = ()
    repetitions: int | None = None
    rounds: int | None = None
    turn: float | None = None
    drawn: str | None = None
    in_order: bool = False
    is_exact: bool = False
    missing: Sequence[str] = ()

    def metric(self, key: str) -> Metric:
        """The metric of that key."""
        return next(metric for metric in self.metrics if metric.key == key)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = sorted(values)
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass
class Result:
    """A race as it was run: for each racer and metric one figure a round."""

    race: Race
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def figure(self, racer: str, metric: str) -> Spread:
        """A racer's figure over the rounds."""
        return Spread.of(self.samples[racer][metric])

    def ratio(self, racer: str, to: str, metric: str) -> Spread:
        """A racer's figure divided by another's of the same round, over the rounds."""
        pairs = zip(self.samples[racer][metric], self.samples[to][metric], strict=True)
        return Spread.of(mine / theirs if theirs else math.inf for mine, theirs in pairs)

    def reached(self, target: Target) -> tuple[Spread, bool] | None:
        """What a target asks about, and whether its median is within the limit; `None` if a racer is missing."""
        if target.ours not in self.samples or (target.peer is not None and target.peer not in self.samples):
            return None
        if target.peer is None:
            spread = self.figure(target.ours, target.metric)
        elif target.times_faster:
            spread = self.ratio(target.peer, target.ours, target.metric)
        else:
            spread = self.ratio(target.ours, target.peer, target.metric)
        if target.times_faster or self.race.metric(target.metric).more_is_better:
            return spread, spread.median >= target.limit
        return spread, spread.median <= target.limit

    def in_order(self) -> list[str]:
        """The racers as they are to be shown."""
        names = list(self.samples)
        if self.race.in_order:
            return names
        first = self.race.metrics[0]
        return sorted(names, key=lambda name: self.figure(name, first.key).median, reverse=first.more_is_better)


def timed(loop: Callable[[int], object]) -> Callable[[int], Figures]:
    """A racer's `run` from a function that does its task that many times."""

    def run(repetitions: int) -> Figures:
        began = time.perf_counter()
        loop(repetitions)
        return {"seconds": (time.perf_counter() - began) / repetitions}

    return run


def run_race(race: Race, scale: Scale, progress: Callable[[int, int], None]) -> Result:
    """
    Let all racers take turns.

    The garbage collector is off during a turn, as in `timeit`, and runs between two.
    """
    result = Result(race, {racer.name: {} for racer in race.racers})
    rounds = 1 if race.is_exact else scale.rounds if race.rounds is None else race.rounds
    repetitions = {racer.name: race.repetitions or calibrated(racer, race.turn or scale.turn) for racer in race.racers}
    for done in range(rounds):
        progress(done, rounds)
        gc.collect()
        first = done % len(race.racers) if race.racers else 0
        for racer in (*race.racers[first:], *race.racers[:first]):
            gc.disable()
            try:
                if race.repetitions is None:
                    racer.run(max(1, repetitions[racer.name] // 20))  # warms up what the others have cooled down
                figures = racer.run(repetitions[racer.name])
            finally:
                gc.enable()
            for key, value in figures.items():
                result.samples[racer.name].setdefault(key, []).append(value)
    progress(rounds, rounds)
    return result


def calibrated(racer: Racer, turn: float) -> int:
    """Repetitions that take a racer about that many seconds."""
    repetitions = 1
    while True:
        seconds = racer.run(repetitions)["seconds"] * repetitions
        if seconds >= turn / 4:
            return max(1, round(repetitions * turn / seconds))
        repetitions = max(repetitions * 2, min(repetitions * 100, round(repetitions * turn / 3 / max(seconds, 1e-9))))
