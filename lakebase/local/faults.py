"""Faults on demand: what the gateway or the workspace API does wrong, to which client, and how often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, Self

from .checks import check_seconds, check_whole
from .errors import LocalLakebaseError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Fault", "Faults"]

Kind = Literal["refused", "reset", "error", "delay", "hang", "stall", "http"]


class Fault:
    """
    One fault. It is in force until it is cleared, or until it has struck `count` times.

    Use it as a context manager, or call `clear()`. `wait()` tells a test that
    a client has met the fault, so that the test need not guess at times.
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
        Block until it has struck that often.

        Raises:
            LocalLakebaseError: It did not within `timeout` seconds.
        """
        with self._hit:
            if not self._hit.wait_for(lambda: self._hits >= hits, timeout):
                raise LocalLakebaseError(f"{self!r}: {hits} hits did not come within {timeout:g} s")

    def clear(self) -> None:
        """End it. Clients that it held go on; clearing it again does nothing."""
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
                self._faults.remove(self)

    def release(self) -> None:
        """Let the clients that it holds go on."""
        self._over.set()

    async def hold(self) -> None:
        """Return when it is cleared; a delay, also after its `seconds`."""
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
        on_changed: Awaited on the loop after a fault began or was cleared; `None` if nothing follows from that.
    """

    def __init__(
        self,
        run: Callable[[Coroutine[Any, Any, None]], None],
        on_changed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._run = run
        self._on_changed = on_changed
        self._all: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Put it in force; where two concern the same client, the one added last strikes."""
        self._run(self._add(fault))
        return fault

    def clear(self, fault: Fault | None = None) -> None:
        """End one fault, or all. A local Lakebase that has stopped has none."""
        try:
            self._run(self._clear(fault))
        except LocalLakebaseError:
            pass

    async def _add(self, fault: Fault) -> None:
        self._all.insert(0, fault)
        await self._announce()

    async def _clear(self, fault: Fault | None) -> None:
        for ended in list(self._all) if fault is None else [fault]:
            self.remove(ended)
            ended.release()
        await self._announce()

    async def _announce(self) -> None:
        if self._on_changed is not None:
            await self._on_changed()

    # On the loop only

    def remove(self, fault: Fault) -> None:
        """Have it strike no more. Clients that it holds stay held."""
        if fault in self._all:
            self._all.remove(fault)

    def find(self, kind: Kind) -> Fault | None:
        """A fault of that kind in force, without counting a hit."""
        return next((fault for fault in self._all if fault.kind == kind), None)

    def strike(
        self, *kinds: Kind, user: str | None = None, path: str | None = None, named: bool = False
    ) -> Fault | None:
        """
        The first fault of these kinds that concerns the user or path; its hit is counted.

        A fault for one user does not concern a connection whose user is not known yet; with `named`, only faults for
        one user are considered.
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
