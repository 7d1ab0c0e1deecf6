"""The numbers of all pools of the process at one instant, in the words of the page."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import telemetry
from ...keyed import pools_of
from ...stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...stats import Holder, Waiting
    from ...telemetry import ServiceSnapshot
    from .masking import Masking

__all__ = ["Reading", "Row", "people_of", "read"]

#: Holders, and waiters, that a page shows: those of the longest time.
SHOWN = 50
_IN_BUDGET = ("used", "idle", "opening", "closing", "waiting")


class Row(NamedTuple):
    """A pool of a key, or a pool without keys; its numbers are read when they are asked for."""

    pool: str
    service: Any
    #: The keyed service that it belongs to, or `None`.
    owner: Any

    @property
    def key(self) -> Any:
        """Its key; `None` for a pool without keys."""
        return self.service.engine.key

    @property
    def waiting(self) -> int:
        """Borrowers in the queue."""
        ledger = self.service.engine.ledger
        return ledger.waiting if ledger.queues else 0

    @property
    def acquired(self) -> int:
        """Resources handed out since the pool was made."""
        return _acquired(self.service.engine.ledger)

    def label(self, masking: Masking) -> str | None:
        """What is shown of its key; `None` for a pool without keys."""
        return None if self.owner is None else masking.label(self.key)

    def as_json(self, masking: Masking) -> dict[str, Any]:
        """What the page shows of it."""
        engine = self.service.engine
        ledger = engine.ledger
        size, idle = len(ledger.slots), len(ledger.idle)
        opening, closing = len(ledger.opening) + len(ledger.late), len(ledger.closing)
        return {
            "pool": self.pool,
            "key": self.label(masking),
            "state": ledger.state.value,
            "max_size": limit_of(ledger.max_size),
            "used": max(size - idle - opening - closing, 0),
            "idle": idle,
            "opening": opening,
            "closing": closing,
            "waiting": self.waiting,
            "acquired": self.acquired,
            "created": ledger.created,
            "timeouts": engine.tally.timeouts,
        }


def _acquired(ledger: Any) -> int:
    used: int = ledger.uses if ledger.slots else ledger.retired_uses  # most pools of many users are empty
    return used


@dataclass(frozen=True, slots=True)
class Reading:
    """All of it; `pools`, `budgets`, `holders` and `waiters` as the page gets them."""

    rows: list[Row]
    pools: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    holders: list[dict[str, Any]]
    waiters: list[dict[str, Any]]


def read(masking: Masking) -> Reading:
    """Read all pools of the process. Takes a few microseconds for each key; waits for nothing."""
    found = telemetry.snapshot()
    rows: list[Row] = []
    pools: list[dict[str, Any]] = []
    budgets: dict[int, dict[str, Any]] = {}
    names: dict[str, int] = {}
    for each in sorted(found, key=lambda each: (each.name, id(each.service))):
        names[each.name] = times = names.get(each.name, 0) + 1
        name = each.name if times == 1 else f"{each.name} #{times}"
        its = _rows(name, each)
        rows += its
        pool = _pool(each, name, its)
        pools.append(pool)
        _add_to_budget(budgets, each, pool)
    return Reading(rows, pools, list(budgets.values()), *_people(found, masking))


def _rows(name: str, each: ServiceSnapshot) -> list[Row]:
    """A row for each key, and for each pool that was replaced or closed and still has something."""
    owner: Any = each.service
    if each.keys is None:
        return [Row(name, owner, None)]
    every = pools_of(owner)
    left = [service for service in every[each.keys :] if service.size]
    return [Row(name, service, owner) for service in (*every[: each.keys], *left)]


def _pool(each: ServiceSnapshot, name: str, rows: list[Row]) -> dict[str, Any]:
    numbers, is_keyed = each.numbers, each.keys is not None
    acquired = created = timeouts = failures = 0
    wait, create = Histogram(), Histogram()
    for row in rows:
        engine = row.service.engine
        ledger = engine.ledger
        timeouts += engine.tally.timeouts
        failures += ledger.create_failures
        if ledger.created:  # most pools of many users were not used lately
            created += ledger.created
            acquired += _acquired(ledger)
            _add(create, engine.create_time)
        _add(wait, engine.wait_time)
    return {
        "id": f"p{id(each.service)}",
        "name": name,
        "is_keyed": is_keyed,
        "side": "asyncio" if each.is_async else "threads",
        "state": "running" if is_keyed else rows[0].service.engine.ledger.state.value,
        "keys": each.keys,
        "max_size": limit_of(numbers.max_size),
        "used": numbers.used,
        "idle": numbers.idle,
        "opening": numbers.opening,
        "closing": numbers.closing,
        "waiting": numbers.pending,
        "acquired": acquired,
        "created": created,
        "timeouts": timeouts,
        "failures": failures,
        "wait": _durations(wait),
        "create": _durations(create),
    }


def _add(total: Histogram, more: Histogram) -> None:
    if more.max:  # it is not empty
        total.add(more)


def _durations(total: Histogram) -> dict[str, Any]:
    return {
        "count": total.count,
        "p50": total.quantile(0.5),
        "p99": total.quantile(0.99),
        "max": total.max,
        "buckets": list(total.buckets()),
    }


def _add_to_budget(budgets: dict[int, dict[str, Any]], each: ServiceSnapshot, pool: dict[str, Any]) -> None:
    """Add a pool to those of its budget. A budget without a limit limits nothing and is not shown."""
    shared, numbers = each.service.budget, each.budget
    if shared is None or numbers is None or numbers.max_total == math.inf:
        return
    budget = budgets.setdefault(
        id(shared),
        {
            "id": f"b{id(shared)}",
            "taken": numbers.used,
            "limit": limit_of(numbers.limit),
            "max_total": limit_of(numbers.max_total),
            "pools": [],
            **dict.fromkeys(_IN_BUDGET, 0),
        },
    )
    budget["pools"].append(pool["name"])
    for name in _IN_BUDGET:
        budget[name] += pool[name]


def _people(found: Sequence[ServiceSnapshot], masking: Masking) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Who holds and who waits, of all pools, those of the longest time first."""
    holders = [one for each in found if each.numbers.used for one in each.service.holders()]
    waiters = [one for each in found if each.numbers.pending for one in each.service.waiters()]
    return (
        [_holder(one, masking) for one in _longest(holders)],
        [_waiter(one, masking) for one in _longest(waiters)],
    )


def people_of(row: Row, masking: Masking) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Who holds, and who waits for, a resource of this row."""
    return (
        [_holder(one, masking) for one in _longest(row.service.holders())],
        [_waiter(one, masking) for one in _longest(row.service.waiters())],
    )


def _longest(people: Iterable[Any]) -> list[Any]:
    return heapq.nlargest(SHOWN, people, key=lambda one: -1.0 if one.since is None else one.since)


def _holder(one: Holder, masking: Masking) -> dict[str, Any]:
    return {**_person(one, masking), "resource": one.resource, "step": one.step}


def _waiter(one: Waiting, masking: Masking) -> dict[str, Any]:
    return {**_person(one, masking), "left": limit_of(round(one.left, 3)), "priority": one.priority}


def _person(one: Holder | Waiting, masking: Masking) -> dict[str, Any]:
    return {
        "pool": one.pool,
        "key": None if one.key is None else masking.label(one.key),
        "age": None if one.since is None else round(one.since, 6),
        "request": masking.name(one.request),
        "site": one.call_site,
        "who": masking.name(one.runner),
    }


def limit_of(value: float) -> float | None:
    """A number for JSON, where what is unlimited is `null`."""
    return None if value == math.inf else value
