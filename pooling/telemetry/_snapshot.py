"""The numbers of all services of the process, cheap enough for ten thousand keys at each scrape."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .._engine.ledger import RETIRING, STOPPED
from ..keyed import AsyncKeyedPoolingService, live_keyed_services, pools_of
from ..service import AsyncPoolingService, live_services

if TYPE_CHECKING:
    from ..budget import PoolBudget
    from ..keyed import KeyedPoolingService
    from ..service import PoolingService

    Service = PoolingService[Any] | AsyncPoolingService[Any]
    KeyedService = KeyedPoolingService[Any, Any] | AsyncKeyedPoolingService[Any, Any]

__all__ = ["BudgetNumbers", "PoolNumbers", "ServiceSnapshot", "hashed", "snapshot"]


class PoolNumbers(NamedTuple):
    """
    The numbers of one pool, or of all pools of a keyed service together.

    Attributes:
        key: The pool's key; `None` if it has none.
        size: Places taken: resources, and those being created or destroyed.
        idle: Idle resources.
        used: Resources that are out, in validation or in a hook.
        opening: Resources being created.
        closing: Resources being destroyed.
        pending: Borrowers in the queue.
        min_size: The sum of a keyed service's keys, as the next.
        max_size: At most the budget's limit.
    """

    key: Any
    size: int
    idle: int
    used: int
    opening: int
    closing: int
    pending: int
    min_size: int
    max_size: float


class BudgetNumbers(NamedTuple):
    """
    The numbers of a limit that pools share. Services with one budget report the same numbers.

    Attributes:
        used: Places taken by all pools of the budget.
        limit: The limit now.
        max_total: The limit when it is not squeezed.
    """

    used: int
    limit: float
    max_total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSnapshot:
    """
    A service or a keyed service at one instant.

    Args:
        service: The service itself.
        name: Its name.
        is_async: Whether it is for asyncio.
        keys: How many keys have a pool; `None` for a service that is not keyed.
        noun: What messages call a resource of it.
        metric_prefix: What the names of its metrics begin with; empty for a keyed service that never had a key.
        numbers: Of all its pools.
        budget: The limit it shares with others, or `None`.
        per_key: Of each pool of a keyed service, if asked for.
    """

    service: Service | KeyedService
    name: str
    is_async: bool
    keys: int | None
    noun: str
    metric_prefix: str
    numbers: PoolNumbers
    budget: BudgetNumbers | None
    per_key: tuple[PoolNumbers, ...] = ()

    @property
    def is_keyed(self) -> bool:
        """Whether it has a pool for each key."""
        return self.keys is not None


def snapshot(*, per_key: bool = False) -> list[ServiceSnapshot]:
    """
    The numbers of all services of this process that are alive, by name. Does not block; call it from any thread.

    A service that was stopped and has no resource left is not among them.

    Args:
        per_key: Whether to add the numbers of each key of keyed services.
    """
    found = [_of_service(service) for service in live_services() if not _is_over(service)]
    found += [_of_keyed(service, per_key=per_key) for service in live_keyed_services()]
    return sorted(found, key=lambda one: one.name)


def hashed(key: Any) -> str:
    """
    A short text that stands for a key where the key itself must not be seen, the same in every process.

    It hides a name from those who read along. A reader who has a list of all users can find out whose it is.
    """
    return hashlib.blake2s(repr(key).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _is_over(service: Service) -> bool:
    ledger = service.engine.ledger
    return ledger.state in (STOPPED, RETIRING) and not ledger.slots


def _of_service(service: Service) -> ServiceSnapshot:
    hooks = service.engine.hooks
    return ServiceSnapshot(
        service=service,
        name=service.name,
        is_async=isinstance(service, AsyncPoolingService),
        keys=None,
        noun=hooks.noun,
        metric_prefix=hooks.metric_prefix,
        numbers=_numbers(service.engine.key, service),
        budget=_of_budget(service.budget),
    )


def _of_keyed(service: KeyedService, *, per_key: bool) -> ServiceSnapshot:
    every = [_numbers(pool.engine.key, pool) for pool in pools_of(service)]
    keys, hooks, budget = len(service), service.latest_hooks, service.budget
    size, idle, used, opening, closing, pending, min_size, max_size = _sums(every)
    return ServiceSnapshot(
        service=service,
        name=service.name,
        is_async=isinstance(service, AsyncKeyedPoolingService),
        keys=keys,
        noun="resource" if hooks is None else hooks.noun,
        metric_prefix="" if hooks is None else hooks.metric_prefix,
        numbers=PoolNumbers(
            None, size, idle, used, opening, closing, pending, min_size, min(max_size, budget.max_total)
        ),
        budget=_of_budget(budget),
        per_key=tuple(every[:keys]) if per_key else (),
    )


def _sums(every: list[PoolNumbers]) -> list[int]:
    """The sum of each number but the key."""
    if not every:
        return [0] * 8
    return [sum(column) for column in list(zip(*every, strict=True))[1:]]  # by columns: half the time of a loop


def _of_budget(budget: PoolBudget | None) -> BudgetNumbers | None:
    return None if budget is None else BudgetNumbers(budget.used, budget.limit, budget.max_total)


def _numbers(key: Any, service: Service) -> PoolNumbers:
    ledger = service.engine.ledger
    size, idle = len(ledger.slots), len(ledger.idle)
    if not size:  # most pools of many users
        return PoolNumbers(key, 0, 0, 0, 0, 0, ledger.waiting if ledger.queues else 0, ledger.min_size, ledger.max_size)
    opening, closing = len(ledger.opening) + len(ledger.late), len(ledger.closing)
    used = max(size - idle - opening - closing, 0)
    pending = ledger.waiting if ledger.queues else 0
    return PoolNumbers(key, size, idle, used, opening, closing, pending, ledger.min_size, ledger.max_size)


def known_limit(limit: float) -> float | None:
    """A limit as exporters show it; `None` if there is none."""
    return None if limit == math.inf else limit
