"""
What a budget knows of the ledgers that have places, and which of them would lose least with one resource.

The loss of a ledger is what its next borrowers would wait for: a create, if its last resource is taken from it, or one
more use in front of them, if it has others; times how often it is used. How often counts uses, each worth half as much
after some time (the policy known as least recently and frequently used, LRFU). All uses fade alike, so that order does
not change while nobody uses anything: the count is kept as its logarithm plus the instant, and needs no update.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sized
from math import inf, log2
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .slots import Slot

HALF_LIFE = 20.0  # how many creates long a use takes to count half
SHORTEST_HALF_LIFE = 0.02  # seconds
LAST = 10.0  # how many times as much as another resource the last one of a ledger is worth
BLEND = 0.25  # weight of the newest sample in an average


class Average:
    """How many seconds something takes, by its latest durations; 0 until one was seen."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more; its share in the average fades as others come."""
        sample = max(seconds, 0.0)  # the clock of a pool may be set back
        self.value = self.value + BLEND * (sample - self.value) if self.value else sample


class Member(Protocol):
    """What a budget needs of a ledger."""

    slots: dict[Slot, None]
    opening: dict[Slot, None]
    closing: dict[Slot, None]
    out: dict[int, Slot]
    idle: Any
    fast: bool
    owner: Any
    create_time: Average
    min_size: int
    options: Any

    @property
    def queues(self) -> Iterable[Sized]: ...
    @property
    def live(self) -> int: ...
    @property
    def uses(self) -> int: ...
    @property
    def waiting_since(self) -> float: ...
    def settle(self, now: float) -> None: ...
    def evict(self, now: float) -> bool: ...
    def audit(self, now: float) -> None: ...


class Age:
    """How old a budget is in half-lives, whose length follows the average create."""

    __slots__ = ("create_time", "half_life", "now", "value")

    def __init__(self) -> None:
        self.now = -inf
        self.value = 0.0
        self.create_time = Average()  # of all ledgers
        self.half_life = SHORTEST_HALF_LIFE

    def tick(self, now: float) -> None:
        """Let it be `now`."""
        if now > self.now:
            self.half_life = max(HALF_LIFE * self.create_time.value, SHORTEST_HALF_LIFE)
            if self.now > -inf:
                self.value += (now - self.now) / self.half_life
            self.now = now


class Standing:
    """What a budget knows of one ledger that has places."""

    __slots__ = ("age", "gained_at", "heat", "ledger", "looked_at", "patience", "rank", "uses", "waits_since")

    def __init__(self, ledger: Member, age: Age) -> None:
        self.ledger = ledger
        self.age = age
        self.gained_at = age.now  # when it last got a resource
        self.waits_since = inf  # while it is short: since when its first waiter has waited for its own resources
        self.patience = 0.0  # seconds that this is worth: the time of a create
        self.looked_at = age.now
        self.uses = ledger.uses  # at that time
        self.heat = age.value - 1.0  # log2 of its uses, plus the budget's age; half a use for a new one
        self.rank: float | None = None  # its place among the spares; `None` if it is not there

    @property
    def places(self) -> int:
        """Resources that it has or is getting."""
        return len(self.ledger.slots) - len(self.ledger.closing)

    @property
    def is_spare(self) -> bool:
        """Whether it has an idle resource and nobody waiting for it."""
        return bool(self.ledger.idle) and not any(self.ledger.queues)

    def load(self) -> float:
        """How many uses and waiters there are for each of its places."""
        return self.load_on(max(self.places, 1))

    def load_on(self, places: int) -> float:
        """How many there would be for each of so many places."""
        self._look()
        uses: float = 2.0 ** (self.heat - self.age.value)
        return (uses + sum(map(len, self.ledger.queues))) / places

    def loss(self) -> float:
        """The logarithm of what it would lose with one resource."""
        self._look()
        others = self.places - 1
        loss = self.heat + log2(self.ledger.create_time.value or 1e-9)
        return loss - log2(LAST * others) if others > 0 else loss

    def _look(self) -> None:
        """Count the uses since the last look, as of the last of them."""
        age = self.age
        if self.looked_at == age.now:
            return
        self.looked_at = age.now
        uses = self.ledger.uses
        if uses > self.uses:
            last = max([slot.taken_at for slot in self.ledger.slots], default=age.now)
            then = age.value - max(age.now - last, 0.0) / age.half_life
            self.heat = then + log2(2.0 ** min(self.heat - then, 500.0) + uses - self.uses)
        self.uses = uses


class Spares:
    """
    The ledgers with an idle resource and no waiter, the one that would lose least first.

    A use makes the loss greater without a note here; a ledger whose loss has grown is put back when it comes first.

    Args:
        active: The standings of all ledgers that have places. One that was removed from it is forgotten here, too.
    """

    __slots__ = ("_active", "_heap", "_serials")

    def __init__(self, active: dict[Member, Standing]) -> None:
        self._active = active
        self._heap: list[tuple[float, int, Standing]] = []
        self._serials = itertools.count()

    def offer(self, standing: Standing) -> None:
        """Add a ledger, unless it is here already."""
        if standing.rank is None and standing.is_spare:
            standing.rank = rank = standing.loss()
            heapq.heappush(self._heap, (rank, next(self._serials), standing))

    def first(self) -> Standing | None:
        """The ledger that would lose least; `None` if no ledger has a resource to spare."""
        heap = self._heap
        while heap:
            rank, _, standing = heap[0]
            if standing.rank != rank or self._active.get(standing.ledger) is not standing:
                heapq.heappop(heap)
                continue
            if not standing.is_spare:
                standing.rank = None
                heapq.heappop(heap)
                continue
            loss = standing.loss()
            if loss <= rank:
                return standing
            standing.rank = loss
            heapq.heapreplace(heap, (loss, next(self._serials), standing))
        return None

    def clear(self) -> None:
        """Forget all."""
        for standing in self._active.values():
            standing.rank = None
        self._heap.clear()
