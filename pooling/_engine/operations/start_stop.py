"""Start a pool and fill it; stop it and wait for borrowed resources."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ...options import checked_seconds
from .. import messages
from ..ledger import RUNNING, STOPPED
from ..slots import Watcher
from .base import Operation

if TYPE_CHECKING:
    from ..pool import Pool

log = logging.getLogger("pooling")


class Start(Operation[None]):
    """
    Serve borrowers and fill up to `min_size`. A pool that cannot be filled is stopped again, and the error is raised.

    Args:
        pool: What to start.
        timeout: Seconds; `None` takes the pool's.
        waits: Whether to wait for `min_size` resources.
    """

    __slots__ = ("failed_before", "fatal", "timeout", "waits")

    def __init__(self, pool: Pool, timeout: float | None, *, waits: bool) -> None:
        super().__init__(pool)
        self.timeout = pool.seconds(timeout)
        self.waits = waits
        self.failed_before = pool.ledger.create_failures
        self.fatal: BaseException | None = None  # the error of a create that is not tried again

    async def run(self) -> None:
        pool = self.pool
        watcher = self._begin()
        pool.dispatch()
        if watcher is None:
            return
        with ExitStack() as undo:
            undo.callback(pool.change, pool.ledger.stop)
            undo.callback(pool.forget, watcher)
            if not await pool.wait(watcher, pool.backend.now() + self.timeout) or self.fatal is not None:
                raise self._error()
            undo.pop_all()

    def _begin(self) -> Watcher | None:
        """Start the ledger; the watcher to wait for until the pool is filled, or `None` if there is no need to wait."""
        pool, ledger = self.pool, self.pool.ledger
        with pool.backend.lock:
            ledger.start(pool.backend.now())
            if not self.waits:
                return None
            ledger.retry(pool.backend.now())
            if ledger.state is not RUNNING or ledger.live >= ledger.min_size:
                return None
            watcher = Watcher(pool.backend.latch(), self._is_over, self)
            ledger.watch(watcher, pool.backend.now())
        return watcher

    def _is_over(self) -> bool:
        ledger = self.pool.ledger
        if ledger.create_failures > self.failed_before and ledger.backoff.last_is_final:
            self.fatal = ledger.backoff.last_error
        return self.fatal is not None or ledger.state is STOPPED or ledger.live >= ledger.min_size

    def _error(self) -> Exception:
        pool = self.pool
        if self.fatal is None:
            return pool.timeout_error(self.timeout, pool.find_waiting_step(), fills=True)
        error = messages.create_error(pool.name, pool.key, pool.ledger, self.fatal)
        error.__cause__ = self.fatal
        return error


class Stop(Operation[None]):
    """
    Refuse borrowers, destroy idle resources, wait for borrowed ones; then log which are still out.

    Args:
        pool: What to stop.
        timeout: Seconds.
        drains: Whether to wait for borrowed resources.
        given: The timeout that the caller gave for several pools, if `timeout` is what is left of it.
    """

    __slots__ = ("drains", "given", "timeout")

    def __init__(self, pool: Pool, timeout: float, *, drains: bool, given: float | None = None) -> None:
        super().__init__(pool)
        self.timeout = checked_seconds(timeout, "timeout", messages.title(pool.name, pool.key))
        self.drains = drains
        self.given = timeout if given is None else given

    async def run(self) -> None:
        pool = self.pool
        watcher = Watcher(pool.backend.latch(), self._is_empty, self)
        with pool.backend.lock:
            now = pool.backend.now()
            pool.ledger.watch(watcher, now)
            pool.ledger.stop(now)
        try:
            pool.dispatch()
            is_met = await pool.wait(watcher, now + self.timeout)
        finally:
            pool.forget(watcher)
        if not is_met and not self._is_empty():  # met, it may have been started again since
            self._report()

    def _is_empty(self) -> bool:
        ledger = self.pool.ledger
        return not ledger.slots or (not self.drains and not ledger.closing and not ledger.idle)

    def _report(self) -> None:
        pool, ledger = self.pool, self.pool.ledger
        ledger.note_borrowers()
        counts = messages.counts_of(ledger)
        borrowers = [slot.borrower for slot in list(ledger.out.values()) if slot.borrower is not None]
        stacks = [borrower.stack for borrower in borrowers if borrower.stack is not None]
        log.warning(
            "%s was stopped, and after timeout=%s s: %s.%s%s%s",
            messages.title(pool.name, pool.key),
            self.given,
            counts,
            " What is out is destroyed when it comes back" if counts.borrowed else " See whether a hook hangs.",
            f": {messages.holders(pool.name, pool.key, ledger, pool.backend.now(), most=10)}."
            if ledger.out
            else "."
            if counts.borrowed
            else "",
            "".join("\n" + "".join(stack.format()) for stack in stacks),
        )
