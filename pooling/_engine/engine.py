"""The engine of one pool: makes its operations, starts its background work, reports its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..stats import Holder, PoolStats, Waiting
from . import messages
from .borrowers import holders_of, waiters_of
from .operations.background import CheckIdle, CheckSlot, CloseSlot, OnSlot, OpenSlot
from .operations.checkpoint import Checkpoint
from .operations.give_back import Destroy, GiveBack
from .operations.start_stop import Start, Stop
from .operations.take import Take
from .pool import Pool
from .slots import CLOSING, OPENING, Check, Close, Open

if TYPE_CHECKING:
    from .call_site import Borrower

_WORKS: dict[type, type[OnSlot]] = {Open: OpenSlot, Close: CloseSlot, Check: CheckSlot}


class Engine(Pool):
    """A pool whose methods return operations: `await` one, or let the backend run it to its end."""

    __slots__ = ()

    def take(self, ctx: Any, timeout: float | None, priority: int, borrower: Borrower, *, queues: bool = True) -> Take:
        """Acquire a resource."""
        return Take(self, ctx, timeout, priority, borrower, queues=queues)

    def give_back(self, value: Any, exc: BaseException | None) -> GiveBack:
        """Give a resource back."""
        return GiveBack(self, value, exc)

    def destroy(self, value: Any) -> Destroy:
        """Destroy a resource that is out."""
        return Destroy(self, value)

    def checkpoint(self, value: Any) -> Checkpoint:
        """Make durable what was done with a resource that is out."""
        return Checkpoint(self, value)

    def check_idle(self, validate: Callable[[Any], Any] | None) -> CheckIdle:
        """Check all idle resources."""
        return CheckIdle(self, validate)

    def start(self, timeout: float | None, *, waits: bool) -> Start:
        """Serve borrowers."""
        return Start(self, timeout, waits=waits)

    def stop(self, timeout: float, *, drains: bool, given: float | None = None) -> Stop:
        """Refuse borrowers and wait for what is out."""
        return Stop(self, timeout, drains=drains, given=given)

    def begin(self, item: Open | Close | Check) -> None:
        work, slot = _WORKS[type(item)](self, item.slot), item.slot
        try:
            self.backend.spawn(work, f"{self.name}-{work.name}")
        except RuntimeError as error:  # no thread to be had, or the loop is closed
            with self.backend.lock:
                now = self.backend.now()
                if slot.operation is not None:  # it has begun all the same
                    return
                if slot.state is OPENING:
                    self.ledger.open_failed(slot, error, now, final=False)
                elif slot.state is CLOSING:
                    self.ledger.closed(slot, now)
                else:
                    self.ledger.give_back(slot, now, cold=True)

    def holders(self) -> list[Holder]:
        """Who holds its resources; records every borrower from now on."""
        self.ledger.note_borrowers()
        return holders_of(self.name, self.key, self.ledger, self.backend.now())

    def waiters(self) -> list[Waiting]:
        """Who waits for a resource."""
        return waiters_of(self.name, self.key, self.ledger, self.backend.now())

    def stats(self) -> PoolStats:
        """The pool's numbers at this instant."""
        ledger = self.ledger
        counts = messages.counts_of(ledger)
        acquired, tally = ledger.uses, self.tally
        closed_by = {} if ledger.closed_by is None else ledger.closed_by.copy()
        return PoolStats(
            name=self.name,
            min_size=ledger.min_size,
            max_size=ledger.max_size,
            size=len(ledger.slots),
            available=counts.idle,
            borrowed=counts.borrowed,
            pending=counts.waiting,
            creating=counts.creating,
            closing=counts.closing,
            requested=tally.asked - tally.served + acquired,
            acquired=acquired,
            queued=tally.queued,
            waited=tally.waited,
            waited_in_vain=tally.waited_in_vain,
            timeouts=tally.timeouts,
            rejected=tally.rejected,
            cancelled=tally.cancelled,
            dismissed=tally.dismissed,
            created=ledger.created,
            create_failures=ledger.create_failures,
            destroyed=sum(closed_by.values()),
            destroyed_by=closed_by,
            wait_time=self.wait_time.copy(),
            create_time=self.create_time.copy(),
            use_time=self.use_time.copy(),
        )
