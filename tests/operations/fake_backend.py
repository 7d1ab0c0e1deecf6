"""
A fake backend: its own clock, one deterministic scheduler, interrupts at chosen awaits.

Every `await` of an operation ends in `FakeBackend._step`, which counts. The script says at which step, and whether
before or after the step took effect, the foreground operation is interrupted. Background operations take turns in the
order of their start; time passes only when none can go on.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import inf
from typing import Any

from pooling._backends.base import StepTimeoutError

BEFORE, AFTER = "before", "after"


class Suspension:
    """What a suspended flow waits for."""

    def __init__(self, is_over: Callable[[], bool], deadline: float) -> None:
        self.is_over = is_over
        self.deadline = deadline

    def __await__(self) -> Generator[Suspension, None, None]:
        yield self


@dataclass(eq=False)
class Latch:
    is_open: bool = False


@dataclass(eq=False)
class Flow:
    """One coroutine under way."""

    name: str
    coroutine: Coroutine[Any, Any, Any]
    waits_for: Suspension | None = None
    is_done: bool = False
    result: Any = None
    error: BaseException | None = None
    to_throw: BaseException | None = None


@dataclass(eq=False)
class Hang:
    """What a hook returns that never ends by itself."""


@dataclass(eq=False)
class Script:
    """
    When to interrupt the flow in the foreground.

    Args:
        interrupts: Number of the await, from 1 -> before or after it takes effect, and with what.
    """

    interrupts: dict[int, tuple[str, type[BaseException]]] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    cut: list[tuple[str, str]] = field(default_factory=list)  # the steps interrupted, and where


class FakeBackend:
    """An environment whose every step is decided by a script; `Backend` tells what its methods promise."""

    can_interrupt = True

    def __init__(self) -> None:
        self.lock = nullcontext()
        self.time = 1000.0
        self.now = lambda: self.time
        self.flows: list[Flow] = []
        self.ready: deque[Flow] = deque()
        self.current: Flow | None = None
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serials = itertools.count()
        self.script = Script()
        self.foreground: Flow | None = None

    # -- what flows await ----------------------------------------------------

    async def _step(self, name: str, effect: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """One await of a flow, interrupted if the script says so."""
        if self.current is not self.foreground:
            return await effect()
        self.script.steps.append(name)
        place, error = self.script.interrupts.get(len(self.script.steps), ("", None))
        if place == BEFORE:
            self._interrupt(name, place, error)
        result = await effect()
        if place == AFTER:
            self._interrupt(name, place, error)
        return result

    def _interrupt(self, name: str, place: str, error: type[BaseException] | None) -> None:
        assert error is not None
        self.script.cut.append((name, place))
        raised = error("by the script")
        self.script.raised.append(raised)
        raise raised

    async def wait(self, latch: Latch, deadline: float) -> bool:
        async def effect() -> bool:
            if not latch.is_open:
                await Suspension(lambda: latch.is_open, deadline)
            return latch.is_open

        return bool(await self._step("wait", effect))

    async def call(
        self, hook: Callable[..., Any], args: tuple[Any, ...], deadline: float, *, stays: bool = False
    ) -> Any:
        async def effect() -> Any:
            result = hook(*args)
            if isinstance(result, Hang):
                await Suspension(lambda: False, deadline)
                raise StepTimeoutError
            return result

        return await self._step(f"call {getattr(hook, '__name__', 'hook')}", effect)

    # -- the rest of an environment ------------------------------------------

    def latch(self) -> Latch:
        return Latch()

    def wake(self, latch: Latch) -> None:
        latch.is_open = True

    def spawn(self, work: Any, name: str) -> None:
        self.start(work, name)

    def start(self, work: Any, name: str) -> Flow:
        """Begin an operation, or a coroutine, in the background."""
        flow = Flow(name, work.begin() if hasattr(work, "begin") else work)
        self.flows.append(flow)
        self.ready.append(flow)
        return flow

    def at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (when, next(self.serials), callback))

    # -- the scheduler ---------------------------------------------------------

    def _advance(self, flow: Flow) -> None:
        self.current, flow.waits_for = flow, None
        try:
            if flow.to_throw is not None:
                error, flow.to_throw = flow.to_throw, None
                flow.waits_for = flow.coroutine.throw(error)
            else:
                flow.waits_for = flow.coroutine.send(None)
        except StopIteration as stop:
            flow.is_done, flow.result = True, stop.value
        except BaseException as error:
            flow.is_done, flow.error = True, error
        finally:
            self.current = None

    def turn(self) -> bool:
        """Let one flow go on to its next suspension, or time pass to the next instant that matters; `False` at rest."""
        if self.ready:
            flow = self.ready.popleft()
            if not flow.is_done:
                self._advance(flow)
            return True
        waiting = [flow for flow in self.flows if not flow.is_done and flow.waits_for is not None]
        for flow in waiting:
            if flow.waits_for.is_over() or flow.waits_for.deadline <= self.time:
                self._advance(flow)
                return True
        deadlines = [flow.waits_for.deadline for flow in waiting if flow.waits_for.deadline != inf]
        if self.timers and self.timers[0][0] <= min([self.time, *deadlines]):
            heapq.heappop(self.timers)[2]()
            return True
        if not deadlines:  # nobody is waiting for time: a timer alone changes nothing that matters here
            return False
        self.time = max(self.time, min([*deadlines, *(when for when, _, _ in self.timers[:1])]))
        return True

    def run(self, coroutine: Coroutine[Any, Any, Any], script: Script | None = None) -> Any:
        """Run a flow in the foreground until it has ended; its result or its error."""
        self.script = script or Script()
        self.foreground = flow = self.start(coroutine, "foreground")
        for _ in range(5000):
            if flow.is_done:
                break
            assert self.turn(), f"the flow hangs after {self.script.steps}"
        else:
            raise AssertionError(f"the flow never ends: {self.script.steps[-10:]}")
        self.foreground = None
        self.flows = [other for other in self.flows if not other.is_done]
        if flow.error is not None:
            raise flow.error
        return flow.result

    def rest(self) -> None:
        """Let everything go on until nobody can."""
        for _ in range(5000):
            if not self.turn():
                self.flows = [flow for flow in self.flows if not flow.is_done]
                return
        raise AssertionError("no rest")
