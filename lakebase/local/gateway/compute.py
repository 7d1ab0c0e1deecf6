"""Scale to zero: whether the compute is active, and what clients meet while it wakes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

__all__ = ["Compute", "State", "WhileWaking", "check_while_waking"]

State = Literal["ACTIVE", "IDLE", "INIT"]
#: The server's error, a refused connection, or a connection that waits until the compute is active.
WhileWaking = Literal["57P03", "refused", "wait"]


def check_while_waking(value: Any) -> None:
    """Raise ValueError unless the value is one of `WhileWaking`."""
    if value not in get_args(WhileWaking):
        raise ValueError(f"while_waking={value!r}: expected '57P03', 'refused' or 'wait'")


class Compute:
    """
    The state of the compute: active, idle (suspended), or waking. Used on the loop alone.

    Args:
        on_changed: Called after each change of state.
    """

    def __init__(self, on_changed: Callable[[], None]) -> None:
        self.state: State = "ACTIVE"
        self.while_waking: WhileWaking = "57P03"
        self._wake_after: float | None = 0.3
        self._on_changed = on_changed
        self._active = asyncio.Event()
        self._active.set()
        self._timer: asyncio.TimerHandle | None = None
        self._active_since = -math.inf

    def suspend(self, wake_after: float | None, while_waking: WhileWaking) -> None:
        """Go idle. The next client wakes it, which takes `wake_after` seconds; with `None`, only `resume` does."""
        self._stop_timer()
        self.state = "IDLE"
        self.while_waking = while_waking
        self._wake_after = wake_after
        self._active.clear()
        self._on_changed()

    def resume(self) -> None:
        """Be active at once."""
        self._stop_timer()
        self.state = "ACTIVE"
        self._active.set()
        self._active_since = asyncio.get_running_loop().time()
        self._on_changed()

    def wake(self) -> bool:
        """Begin to wake if it is idle, since a client has come; return whether it is active already."""
        if self.state == "IDLE" and self._wake_after is not None:
            self.state = "INIT"
            self._timer = asyncio.get_running_loop().call_later(self._wake_after, self.resume)
            self._on_changed()
        return self.state == "ACTIVE"

    async def wait_until_idle_for(self, timeout: float, idle_seconds: Callable[[], Awaitable[float]]) -> None:
        """
        Return when it has been active and without a statement for `timeout` seconds.

        Args:
            timeout: Seconds.
            idle_seconds: Returns for how long there has been no statement.
        """
        while True:
            await self._active.wait()
            idle = min(await idle_seconds(), asyncio.get_running_loop().time() - self._active_since)
            if idle >= timeout:
                return
            # A statement in the meantime only makes the moment later.
            await asyncio.sleep(timeout - idle)

    async def wait_until_active(self) -> None:
        """Return once it is active."""
        await self._active.wait()

    @property
    def is_unreachable(self) -> bool:
        """Whether connections are refused while it wakes."""
        return self.state == "INIT" and self.while_waking == "refused"

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
