"""
The background of a shared budget: one thread that talks to the store while this process has places or wants some.

It waits for an instant, for the pools of this process, or for another process that rings; then it asks the pools for
their numbers and makes the claim that is due. Without places and without need of any it ends; the next need starts
another one.
"""

from __future__ import annotations

import atexit
import logging
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from ._backends.threads import shared, starts
from ._engine.messages import words_of
from .leases._store import StoreError
from .locks import make_lock
from .stats import Histogram

if TYPE_CHECKING:
    from ._engine.lease_book import Claim
    from ._engine.leaseholder import Leaseholder
    from .leases._store import LeaseSession

log = logging.getLogger("pooling")

PATIENCE = 0.2  # seconds to wait for an event loop to tell its pools' numbers
PAUSE = 0.5  # seconds until the thread goes on after an error that should not happen
LONGEST_CLAIM = 5.0  # seconds after which a claim without an answer is given up
ENDS_WITHIN = 1.0  # seconds that an exit of the process waits for places to be given back

_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """A clock that goes on while the machine sleeps, where there is one."""
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)


class LeaseKeeper:
    """
    Keeps the lease of one process.

    Args:
        title: For messages.
        holder: What it has; shared with the pools' side, under `lock`.
        session: With the store.
        visit: Asks the pools for their numbers, then calls back; returns whether it will, or `None` if they are gone.
    """

    def __init__(
        self,
        title: str,
        holder: Leaseholder,
        session: LeaseSession,
        visit: Callable[[Callable[[], None]], bool | None],
    ) -> None:
        self.lock = make_lock()  # of `holder`; held for no longer than a few lines
        self.holder = holder
        self.claims = 0  # how many were made
        self.claim_time = Histogram()  # seconds until the answer, of those that got one
        self.error: BaseException | None = None  # why the last claim failed
        self._title = title
        self._session = session
        self._visit = visit
        self._thread: threading.Thread | None = None
        self._ears: tuple[socket.socket, socket.socket] | None = None
        self._is_woken = False
        self._sent: Claim | None = None  # the claim that waits for its answer
        _keepers.add(self)

    # -- for the pools' side ----------------------------------------------------

    def wake(self) -> None:
        """Have the thread look what is due; starts it if there is none. Does not block."""
        with self.lock:
            if self._thread is not None and self._thread.is_alive():
                if not self._is_woken and self._ears is not None:
                    try:
                        self._ears[1].send(b"!")
                    except OSError:  # full: it is going to look
                        pass
                    self._is_woken = True  # afterwards: an interrupt in between costs one more byte
                return
            self._close_ears()
            self._is_woken = False
            self._ears = socket.socketpair()
            for ear in self._ears:
                ear.setblocking(False)
            self._thread = threading.Thread(target=self._run, name="pooling-leases", daemon=True)
            if not starts(self._thread):  # the interpreter ends: nothing can be leased any more
                self._thread = None

    def finish(self, seconds: float) -> None:
        """Wait until unused places have been given back, unless the pools still use some or the store is away."""
        thread = self._thread
        if thread is not None and not self.holder.used and self.error is None:
            thread.join(seconds)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's files and sockets."""
        self._session.abandon()
        self._close_ears()

    def _close_ears(self) -> None:
        ears, self._ears = self._ears, None
        for ear in ears or ():
            ear.close()

    # -- the thread ----------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends():
            try:
                self._turn()
            except Exception as error:
                # Goes on: without this thread the pools would not learn that their lease ends.
                if self.error is None:
                    log.exception("%s: leasing failed; this process goes on trying", self._title)
                self.error = error
                with self.lock:
                    self.holder.failed(now())
                time.sleep(PAUSE)

    def _turn(self) -> None:
        self._listen()
        self._ask_pools()
        with self.lock:
            is_due = self.holder.next_at(now()) <= now()
        if is_due:
            self._claim()
            self._ask_pools()

    def _ends(self) -> bool:
        """Whether there is nothing left to do; then the thread is known to have ended."""
        with self.lock:
            if self._is_woken or not self.holder.is_at_rest:
                return False
            if self._thread is threading.current_thread():
                self._thread = None
                self._close_ears()
            self._session.close()
            return True

    def _listen(self) -> None:
        """Wait until something is due, the pools wake this thread, or another process rings."""
        with self.lock:
            at = now()
            when = min(self.holder.next_at(at), self.holder.look_at())
            ears = self._ears
        assert ears is not None
        with selectors.DefaultSelector() as selector:
            selector.register(ears[0], selectors.EVENT_READ)
            bell = self._session.bell()
            if bell is not None:
                selector.register(bell, selectors.EVENT_READ)
            selector.select(None if when == inf else max(when - at, 0.0))
        with self.lock:
            self._is_woken = False
            try:
                ears[0].recv(4096)
            except BlockingIOError:  # woken by something else
                pass
        if bell is not None and self._session.hear():
            with self.lock:
                self.holder.rung()

    def _ask_pools(self) -> None:
        """Have the pools tell what they use and want, and take the limit that they have now."""
        told = threading.Event()
        is_asked = self._visit(told.set)
        if is_asked:
            told.wait(PATIENCE)  # a loop that is blocked tells later
        elif is_asked is None:
            with self.lock:
                self.holder.settle(0, 0, now())

    def _claim(self) -> None:
        with self.lock:
            self._sent = claim = self.holder.claim(now())
            self.claims += 1
        self._watch(claim)
        began = time.perf_counter()
        try:
            answer = self._session.exchange(claim)
            if answer is None:
                raise StoreError("a later claim of this process came before")
        except Exception as error:  # noqa: BLE001 - whatever a store's client raises
            self._failed(error)
            return
        finally:
            self._sent = None
        self.claim_time.record(time.perf_counter() - began)
        with self.lock:
            self.holder.answered(claim, answer, now())
        if self.error is not None:
            self.error = None
            log.warning("%s: the store can be reached again", self._title)

    def _failed(self, error: Exception) -> None:
        with self.lock:
            is_first = self.holder.failed(now())
            leased, seconds = self.holder.leased, self.holder.ends_at - now()
        self.error = error
        if is_first:
            log.warning(
                "%s: the store cannot be reached (%s: %s). This process keeps its %d places%s, and opens no more; it "
                "goes on trying.",
                self._title,
                type(error).__name__,
                words_of(error),
                leased,
                "" if seconds == inf else f" for {max(seconds, 0):.0f} s, after which they may be given to others",
            )

    # -- a store that hangs --------------------------------------------------------

    def _watch(self, claim: Claim) -> None:
        """While a claim has no answer: give it up after a while, and see that the pools know when the lease ends."""
        seconds = min(LONGEST_CLAIM, claim.ttl / 4)
        shared.timer.at(time.monotonic() + seconds, _Watch(self, claim))

    def look_at_claim(self, claim: Claim) -> None:
        """The timer's call."""
        if self._sent is not claim:
            return
        self._session.abort()
        with self.lock:
            has_ended = not self.holder.is_valid(now())
        if has_ended:
            self._visit(_nothing)
        self._watch(claim)


class _Watch:
    """A callback for the timer, which does not keep the keeper alive."""

    def __init__(self, keeper: LeaseKeeper, claim: Claim) -> None:
        self._keeper = weakref.ref(keeper)
        self._claim = claim

    def __call__(self) -> None:
        keeper = self._keeper()
        if keeper is not None:
            keeper.look_at_claim(self._claim)


def _nothing() -> None:
    pass


_keepers: weakref.WeakSet[LeaseKeeper] = weakref.WeakSet()


@atexit.register
def _give_back_at_exit() -> None:
    """Let threads that give back unused places end first: the process's other places come back when it is gone."""
    ends_at = time.monotonic() + ENDS_WITHIN
    for keeper in list(_keepers):
        keeper.finish(max(ends_at - time.monotonic(), 0.0))
