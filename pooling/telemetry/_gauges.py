"""What a snapshot means in metrics: one table for all exporters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ._recording import POOL_KEY, POOL_NAME, Keys, key_text
from ._snapshot import PoolNumbers, ServiceSnapshot, known_limit, snapshot

__all__ = ["GAUGES", "Gauge", "Point", "gauges_of", "points"]


@dataclass(frozen=True, slots=True)
class Gauge:
    """
    A number that goes up and down.

    Args:
        name: After the pool's prefix if it begins with a dot, else the whole name.
        unit: As in UCUM; `{}` stands for the noun.
        description: One sentence; `{}` stands for the noun.
        has_state: Whether there is one value for each state, `idle` and `used`.
    """

    name: str
    unit: str
    description: str
    has_state: bool = False

    def name_under(self, prefix: str) -> str:
        """The whole name, for pools with this prefix."""
        return f"{prefix}{self.name}" if self.name.startswith(".") else self.name

    def attributes_under(self, prefix: str, keys: Keys) -> tuple[str, ...]:
        """The names of its attributes."""
        name = f"{prefix}.pool.name" if self.name.startswith(".") else POOL_NAME
        state = (f"{prefix}.state",) if self.has_state else ()
        return (name, *state, *((POOL_KEY,) if keys != "none" and self.is_per_key else ()))

    @property
    def is_per_key(self) -> bool:
        """Whether it has a value for each key, where keys are shown."""
        return self.name.startswith(".")


COUNT = Gauge(".count", "{{{}}}", "The number of {}s by state.", has_state=True)
IDLE_MAX = Gauge(".idle.max", "{{{}}}", "The maximum number of idle {}s allowed.")
IDLE_MIN = Gauge(".idle.min", "{{{}}}", "The minimum number of idle {}s allowed.")
MAX = Gauge(".max", "{{{}}}", "The maximum number of {}s allowed.")
PENDING = Gauge(".pending_requests", "{{request}}", "The number of borrowers that wait for a {}.")
OPENING = Gauge("pooling.opening", "{{resource}}", "Resources being created.")
KEYS = Gauge("pooling.keys", "{{key}}", "Keys that have a pool.")
BUDGET_USED = Gauge("pooling.budget.used", "{{resource}}", "Places of the shared budget that are taken.")
BUDGET_LIMIT = Gauge("pooling.budget.limit", "{{resource}}", "The limit of the shared budget now.")

GAUGES = (COUNT, IDLE_MAX, IDLE_MIN, MAX, PENDING, OPENING, KEYS, BUDGET_USED, BUDGET_LIMIT)


class Point(NamedTuple):
    """One value of a gauge, with its attributes in the order of `Gauge.attributes_under`."""

    gauge: Gauge
    prefix: str
    attributes: tuple[str, ...]
    value: float


def gauges_of(prefix: str) -> Iterator[tuple[Gauge, str, str, str]]:
    """Each gauge with its whole name, unit and description under a prefix."""
    noun = prefix.rpartition(".")[2]
    for gauge in GAUGES:
        yield gauge, gauge.name_under(prefix), gauge.unit.format(noun), gauge.description.format(noun)


def points(keys: Keys = "none") -> list[Point]:
    """
    The values of all gauges now. Services of one name and prefix are added up, but for the budget that they share.

    Args:
        keys: How each key's values are shown: `none` adds them up.
    """
    sums: dict[tuple[Gauge, str, tuple[str, ...]], float] = {}
    shares = keys != "none"
    for service in snapshot(per_key=shares):
        for gauge, attributes, value in _values(service, keys):
            place = (gauge, service.metric_prefix if gauge.is_per_key else "", attributes)
            before = sums.get(place, 0)
            sums[place] = max(before, value) if gauge in (BUDGET_USED, BUDGET_LIMIT) else before + value
    return [Point(gauge, prefix, attributes, value) for (gauge, prefix, attributes), value in sums.items()]


def _values(service: ServiceSnapshot, keys: Keys) -> Iterator[tuple[Gauge, tuple[str, ...], float]]:
    name, budget = service.name, service.budget
    if service.metric_prefix:
        shown: Iterable[PoolNumbers] = service.per_key if keys != "none" and service.is_keyed else (service.numbers,)
        for numbers in shown:
            key = () if keys == "none" else (("" if numbers.key is None else key_text(numbers.key, keys)),)
            yield from _pool_values(name, key, numbers)
        yield OPENING, (name,), service.numbers.opening
    if service.keys is not None:
        yield KEYS, (name,), service.keys
    if budget is not None:
        yield BUDGET_USED, (name,), budget.used
        if (limit := known_limit(budget.limit)) is not None:
            yield BUDGET_LIMIT, (name,), limit


def _pool_values(
    name: str, key: tuple[str, ...], numbers: PoolNumbers
) -> Iterator[tuple[Gauge, tuple[str, ...], float]]:
    yield COUNT, (name, "idle", *key), numbers.idle
    yield COUNT, (name, "used", *key), numbers.used
    if (most := known_limit(numbers.max_size)) is not None:
        yield MAX, (name, *key), most
        yield IDLE_MAX, (name, *key), most  # an idle resource is kept as long as there is room
    yield IDLE_MIN, (name, *key), numbers.min_size
    yield PENDING, (name, *key), numbers.pending


def named(gauge: Gauge, point: Point, keys: Keys) -> Mapping[str, str]:
    """The attributes of a point with their names."""
    return dict(zip(gauge.attributes_under(point.prefix, keys), point.attributes, strict=True))
