"""Scale to zero: whether the compute is there, and what a client meets that wakes it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Literal

__all__ = ["Compute", "State", "WhileWaking"]

State = Literal["ACTIVE", "IDLE", "INIT"]
#: An error from the server, no server at all, or a connection that takes as long as the waking.
WhileWaking = Literal["57P03", "refused", "wait"]


class Compute:
    """
    Active, idle (suspended), or on its way up. Used on the loop alone.

    Args:
        changed: Called after each change of state.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.state: State = "ACTIVE"
        self.while_waking: WhileWaking = "57P03"
        self._wake_after: float | None = 0.3
        self._changed = changed
        self._active = asyncio.Event()
        self._active.set()
        self._timer: asyncio.TimerHandle | None = None
        self._active_since = -math.inf

    def suspend(self, wake_after: float | None, while_waking: WhileWaking) -> None:
        """Go idle; the next knock begins the waking, which takes so many seconds (`None`: it does not begin)."""
        self._stop_timer()
        self.state = "IDLE"
        self.while_waking = while_waking
        self._wake_after = wake_after
        self._active.clear()
        self._changed()

    def resume(self) -> None:
        """Be active."""
        self._stop_timer()
        self.state = "ACTIVE"
        self._active.set()
        self._active_since = asyncio.get_running_loop().time()
        self._changed()

    def knock(self) -> bool:
        """A client is here: whether the compute is active. If it was idle, it begins to wake."""
        if self.state == "IDLE" and self._wake_after is not None:
            self.state = "INIT"
            self._timer = asyncio.get_running_loop().call_later(self._wake_after, self.resume)
            self._changed()
        return self.state == "ACTIVE"

    async def stay_idle_for(self, timeout: float, idle_seconds: Callable[[], Awaitable[float]]) -> None:
        """
        Return when it has been active and without a statement for so many seconds.

        Args:
            timeout: Seconds.
            idle_seconds: Returns for how long there has been no statement.
        """
        while True:
            await self._active.wait()
            idle = min(await idle_seconds(), asyncio.get_running_loop().time() - self._active_since)
            if idle >= timeout:
                return
            # Whoever does something meanwhile only makes it later.
            await asyncio.sleep(timeout - idle)

    async def active(self) -> None:
        """Return once it is active."""
        await self._active.wait()

    @property
    def is_unreachable(self) -> bool:
        """Whether nobody listens."""
        return self.state == "INIT" and self.while_waking == "refused"

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
