"""Faults on demand: what the gateway or the workspace API does wrong, to whom, and how often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, Self

from ._checks import check_seconds, check_whole
from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Fault", "Faults"]

Kind = Literal["refused", "reset", "error", "delay", "hang", "stall", "http"]


class Fault:
    """
    One fault, in force until it is cleared, or until it has hit so often.

    Use it as a context manager, or call `clear()`. `wait()` tells a test that
    its victim has arrived, without guessing at times.
    """

    def __init__(
        self,
        faults: Faults,
        kind: Kind,
        *,
        user: str | None = None,
        path: str | None = None,
        count: int | None = None,
        seconds: float = 0.0,
        code: str = "",
        message: str = "",
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        if count is not None:
            check_whole("count", count, 1)
        check_seconds("seconds", seconds)
        self.kind = kind
        self.user = user
        self.path = path
        self.seconds = seconds
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self._faults = faults
        self._left = count
        self._hits = 0
        self._hit = threading.Condition()
        self._over = asyncio.Event()

    def __repr__(self) -> str:
        left = "until cleared" if self._left is None else f"{self._left} more"
        what = f"{self.kind} {self.code or self.status or ''}".strip()
        return f"<Fault {what} for {self.user or self.path or 'all'}, {left}, {self._hits} hits>"

    @property
    def hits(self) -> int:
        """How often it has struck."""
        return self._hits

    def wait(self, hits: int = 1, timeout: float = 10.0) -> None:
        """
        Block until it has struck so often.

        Raises:
            LocalLakebaseError: It did not within `timeout` seconds.
        """
        with self._hit:
            if not self._hit.wait_for(lambda: self._hits >= hits, timeout):
                raise LocalLakebaseError(f"{self!r}: {hits} hits did not come within {timeout:g} s")

    def clear(self) -> None:
        """End it. What it held goes on; clearing again does nothing."""
        self._faults.clear(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    # On the loop only

    def strike(self) -> None:
        """Count a hit."""
        with self._hit:
            self._hits += 1
            self._hit.notify_all()
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._faults.forget(self)

    def end(self) -> None:
        """Let go of what it holds."""
        self._over.set()

    async def hold(self) -> None:
        """Return when it is cleared, or after its `seconds` if it is a delay."""
        if self.kind != "delay":
            await self._over.wait()
            return
        try:
            async with asyncio.timeout(self.seconds):
                await self._over.wait()
        except TimeoutError:
            pass


class Faults:
    """
    The faults in force.

    Read on the loop alone; `add` and `clear` may be called from any other
    thread, and have taken effect when they return.

    Args:
        run: Runs a coroutine on the loop and returns its result.
        changed: Awaited on the loop after a fault began or was cleared.
    """

    def __init__(
        self, run: Callable[[Coroutine[Any, Any, None]], None], changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._run = run
        self._changed = changed
        self._all: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Put it in force; one that was put there later goes first."""
        self._run(self._add(fault))
        return fault

    def clear(self, fault: Fault | None = None) -> None:
        """End one, or all; a local Lakebase that has stopped has none."""
        try:
            self._run(self._clear(fault))
        except LocalLakebaseError:
            pass

    async def _add(self, fault: Fault) -> None:
        self._all.insert(0, fault)
        await self._changed()

    async def _clear(self, fault: Fault | None) -> None:
        for gone in list(self._all) if fault is None else [fault]:
            self.forget(gone)
            gone.end()
        await self._changed()

    # On the loop only

    def forget(self, fault: Fault) -> None:
        """Strike no more."""
        if fault in self._all:
            self._all.remove(fault)

    def has(self, kind: Kind) -> Fault | None:
        """A fault of that kind in force, without striking."""
        return next((fault for fault in self._all if fault.kind == kind), None)

    def take(self, *kinds: Kind, user: str | None = None, path: str | None = None, named: bool = False) -> Fault | None:
        """
        The first fault of these kinds that concerns the user or path; it has struck.

        A fault for one user does not concern a connection whose user is not
        known yet; with `named`, only such faults are looked at.
        """
        for fault in self._all:
            if fault.kind not in kinds or (fault.user is not None and fault.user != user):
                continue
            if named and fault.user is None:
                continue
            if fault.path is not None and (path is None or fault.path not in path):
                continue
            fault.strike()
            return fault
        return None
