"""One limit that the pools of several processes share."""

from __future__ import annotations

import os
import socket
import uuid
import weakref
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Never

from ._engine.leased_budget import LeasedBudget
from ._engine.leaseholder import Leaseholder
from ._engine.messages import words_of
from ._lease_keeper import LeaseKeeper, now
from .budget import PoolBudget
from .errors import ConfigurationError
from .leases._store import LeaseStore
from .locks import make_lock
from .options import checked_seconds, refuse_unknown
from .stats import Histogram

if TYPE_CHECKING:
    import threading

    from ._engine.standing import Member

__all__ = ["SharedBudget"]

LARGEST_BLOCK = 16
BLOCKS = 16  # parts of the limit that are a block, by default
SHORTEST_TTL = 1.0


class SharedBudget(PoolBudget):
    """
    The most resources that the pools of several processes may have together: workers, replicas, jobs.

    Give it to pools, keyed services and managers as `budget=`. Each process leases places from the store, in blocks and
    ahead of need, and gives back what is idle; a create with a leased place asks nobody. A process that needs a place
    while none is free gets one that another process does not use, or that of an idle resource there; between busy
    processes each gets an equal share, of which those that need less leave the rest to others.

    A process that ends gives its places back: at once with `FileLeases`, else within `lease_ttl`, as does one that
    hangs or cannot reach the store. So `lease_ttl` is also for how long pools go on while the store is away: until then
    a process keeps what it has and opens no more; after that it closes what is idle or comes back, for others may have
    its places.

    Pools for threads and pools for asyncio cannot share one of these, but two on the same store share a limit. One
    thread runs while this process has places or waits for some. A forked child begins without places.

    It can be pickled, if its store can: another process gets the same limit, and places of its own.

    Args:
        limit: The limit of all processes. While processes have different ones, the lowest counts.
        store: Where they agree: `FileLeases(directory)`, `RedisLeases(client)`, `PostgresLeases(connect)` or
            `RayLeases()`.
        name: Tells limits of one store apart.
        lease_ttl: Seconds without a word after which a process's places are given to others.
        block: How many places to lease at a time; `None` is a sixteenth of the limit, at most 16.
        idle_after: Seconds without growth after which unused places are given back.

    Raises:
        ConfigurationError: A setting has a value that cannot work, or there is no such setting.
    """

    def __init__(
        self,
        limit: int,
        store: LeaseStore,
        *,
        name: str = "default",
        lease_ttl: float = 30.0,
        block: int | None = None,
        idle_after: float = 5.0,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, ("limit", "store", "name", "lease_ttl", "block", "idle_after"), "a shared budget")
        _check(limit, store, name, block)
        self._store = store
        self._name = name
        self._ttl = checked_seconds(lease_ttl, "lease_ttl", "a shared budget")
        if not SHORTEST_TTL <= self._ttl < inf:
            raise ConfigurationError(
                f"lease_ttl={lease_ttl!r}: expected at least {SHORTEST_TTL:g} s", field="lease_ttl"
            )
        self._block = block
        self._idle_after = checked_seconds(idle_after, "idle_after", "a shared budget")
        if self._idle_after < 0:
            raise ConfigurationError(f"idle_after={idle_after!r}: expected 0 s or more", field="idle_after")
        self._keeper: LeaseKeeper | None = None
        super().__init__(limit)

    def _renew(self) -> None:
        """Begin without pools and places in a forked child."""
        if self._keeper is not None:
            self._keeper.abandon()
        limit = int(self._max_total)
        self._lock = make_lock()
        self._leased = LeasedBudget(limit, self._permits, self._tell)
        self._budget = self._leased
        self._nested = None
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        session = self._store.open(name, self._name)
        self._holder = Leaseholder(
            name,
            limit,
            ttl=inf if session.sees_death else self._ttl,
            block=self._block or max(1, min(limit // BLOCKS, LARGEST_BLOCK)),
            idle_after=self._idle_after,
            can_hear=session.can_hear,
        )
        self._keeper = LeaseKeeper(f"shared budget {self._name!r}", self._holder, session, _Visit(self))
        self._told: tuple[int, int] = (0, 0)
        self._is_visiting = False
        self._pool: weakref.ref[Any] | None = None  # of the last change; its backend leads to all pools

    # -- numbers ---------------------------------------------------------------

    @property
    def max_total(self) -> int:
        """The limit of all processes."""
        return int(self._max_total)

    @property
    def leased(self) -> int:
        """Places that this process has leased, used or not."""
        return self._holder.leased

    @property
    def limit(self) -> float:
        """Places that this process may use at present."""
        return self._leased.limit

    @property
    def claims(self) -> int:
        """How often this process has asked the store."""
        return self._keeper.claims if self._keeper is not None else 0

    @property
    def claim_time(self) -> Histogram:
        """How long the store took to answer this process, without the claims that failed; a copy."""
        return self._keeper.claim_time.copy() if self._keeper is not None else Histogram()

    @property
    def store_error(self) -> BaseException | None:
        """Why the store cannot be reached; `None` if it can, as far as is known."""
        return self._keeper.error if self._keeper is not None else None

    def resize(self, max_total: float) -> None:
        """
        Change the limit; also in the other processes, if it is the lowest.

        Raises:
            ConfigurationError: It is no whole number of at least 1.
        """
        _check_limit(max_total)
        self._max_total = max_total
        with self._keeper_lock():
            self._holder.limit = int(max_total)
            self._holder.rung()
        self._leased.max_total = max_total
        if self._pool is not None and self._keeper is not None:
            self._keeper.wake()

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {
            "name": self._name,
            "lease_ttl": self._ttl,
            "block": self._block,
            "idle_after": self._idle_after,
        }
        return partial(type(self), **options), (self.max_total, self._store)

    def __repr__(self) -> str:
        return f"<SharedBudget {self._name!r}: {self.used} used here, {self.leased} leased, of {self.max_total}>"

    # -- the pools' side ---------------------------------------------------------

    def _keeper_lock(self) -> threading.Lock:
        assert self._keeper is not None
        return self._keeper.lock

    def _permits(self, used: int) -> bool:
        return self._holder.permits(used, now())

    def _tell(self, ledger: Member | None) -> None:
        """After each change of the ledgers, under their lock: see whether the process needs more or less."""
        budget = self._leased
        numbers = (budget.used, budget.wanted)
        if numbers == self._told:
            return
        if ledger is not None and (self._pool is None or self._pool() is not ledger.owner):
            self._pool = weakref.ref(ledger.owner)
        assert self._keeper is not None
        if self._settle():
            self._keeper.wake()

    def _settle(self) -> bool:
        """Tell what is used and wanted, and take the limit for it; whether a claim or a visit is due."""
        budget, holder = self._leased, self._holder
        assert self._keeper is not None
        with self._keeper.lock:
            numbers = budget.used, budget.wanted
            at = now()
            budget.lease(holder.settle(*numbers, at), holder.beyond)
            self._told = numbers  # last: an interrupt before it has all this done again
            budget.trouble = _trouble(self._name, self._keeper.error, holder.recovers_in)
            return holder.next_at(at) <= at

    def _visit(self, told: Callable[[], None]) -> bool:
        """Have the pools take their limit, and tell their numbers; then call `told`. Whether it will be called."""
        pool = None if self._pool is None else self._pool()
        if pool is None:
            pool = next((ledger.owner for ledger in list(self._leased.active)), None)
        if pool is None:
            self._settle()
            told()
            return True

        def in_place() -> None:
            backend = pool.backend
            self._is_visiting = False
            with backend.lock:
                at = backend.now()
                self._settle()
                self._holder.needs = self._leased.needs(at)
                self._leased.offer(at)
            pool.dispatch()
            told()

        if self._is_visiting:  # the loop has been blocked since the last visit, or is closed
            return True
        self._is_visiting = True
        is_coming = bool(pool.backend.visit(in_place))
        self._is_visiting = self._is_visiting and is_coming
        return is_coming


class _Visit:
    """`SharedBudget._visit`, for a thread that does not keep the budget alive."""

    def __init__(self, budget: SharedBudget) -> None:
        self._budget = weakref.ref(budget)

    def __call__(self, told: Callable[[], None]) -> bool | None:
        budget = self._budget()
        return None if budget is None else budget._visit(told)


def _trouble(name: str, error: BaseException | None, recovers_in: float) -> str:
    """What keeps a process from leasing more, for messages."""
    if error is None and recovers_in:
        return (
            f"The store of the shared budget {name!r} has just been started, without data: for {recovers_in:.0f} s it "
            "gives places only to processes that had some."
        )
    if error is None:
        return ""
    return (
        f"The store of the shared budget {name!r} cannot be reached ({type(error).__name__}: {words_of(error)}), so no "
        "further place can be leased. Once it can be reached, this process goes on by itself."
    )


def _check(limit: object, store: object, name: object, block: object) -> None:
    _check_limit(limit)
    if not isinstance(store, LeaseStore):
        raise ConfigurationError(
            f"store={store!r}: expected FileLeases, RedisLeases, PostgresLeases or RayLeases of pooling.leases",
            field="store",
        )
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"name={name!r}: expected a text that is not empty", field="name")
    if block is not None and (not isinstance(block, int) or isinstance(block, bool) or block < 1):
        raise ConfigurationError(f"block={block!r}: expected a whole number, at least 1, or None", field="block")


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigurationError(
            f"limit={limit!r}: expected a whole number, at least 1; without a limit there is nothing to share",
            field="limit",
        )
