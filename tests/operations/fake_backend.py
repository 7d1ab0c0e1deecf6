"""
A fake backend: its own clock, one deterministic scheduler, interrupts at chosen awaits.

Every `await` of an operation ends in `FakeBackend._step`, which counts. An `InterruptPlan` says at which step, and
whether before or after the step took effect, the foreground operation is interrupted. Background operations take turns
in the order of their start; time passes only when none can go on.
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
    """What a suspended operation waits for."""

    def __init__(self, is_over: Callable[[], bool], deadline: float) -> None:
        self.is_over = is_over
        self.deadline = deadline

    def __await__(self) -> Generator[Suspension, None, None]:
        yield self


@dataclass(eq=False)
class Latch:
    is_open: bool = False


@dataclass(eq=False)
class RunningOperation:
    """One coroutine that runs or is suspended."""

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
class InterruptPlan:
    """
    When to interrupt the operation in the foreground, and the record of its steps.

    Args:
        interrupts: Number of the await, from 1 -> before or after it takes effect, and with what.
    """

    interrupts: dict[int, tuple[str, type[BaseException]]] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    cut: list[tuple[str, str]] = field(default_factory=list)  # the steps interrupted, and where


class FakeBackend:
    """A backend that interrupts the foreground operation as planned; `Backend` documents its methods."""

    can_interrupt = True

    def __init__(self) -> None:
        self.lock = nullcontext()
        self.time = 1000.0
        self.now = lambda: self.time
        self.operations: list[RunningOperation] = []
        self.ready: deque[RunningOperation] = deque()
        self.current: RunningOperation | None = None
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serials = itertools.count()
        self.plan = InterruptPlan()
        self.foreground: RunningOperation | None = None

    # -- awaited by operations -----------------------------------------------

    async def _step(self, name: str, effect: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """One await of an operation, interrupted if the plan says so."""
        if self.current is not self.foreground:
            return await effect()
        self.plan.steps.append(name)
        place, error = self.plan.interrupts.get(len(self.plan.steps), ("", None))
        if place == BEFORE:
            self._interrupt(name, place, error)
        result = await effect()
        if place == AFTER:
            self._interrupt(name, place, error)
        return result

    def _interrupt(self, name: str, place: str, error: type[BaseException] | None) -> None:
        assert error is not None
        self.plan.cut.append((name, place))
        raised = error("by the test")
        self.plan.raised.append(raised)
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

    # -- the rest of a backend -----------------------------------------------

    def latch(self) -> Latch:
        return Latch()

    def wake(self, latch: Latch) -> None:
        latch.is_open = True

    def spawn(self, work: Any, name: str) -> None:
        self.start(work, name)

    def start(self, work: Any, name: str) -> RunningOperation:
        """Begin an operation, or a coroutine, in the background."""
        operation = RunningOperation(name, work.begin() if hasattr(work, "begin") else work)
        self.operations.append(operation)
        self.ready.append(operation)
        return operation

    def at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (when, next(self.serials), callback))

    # -- the scheduler ---------------------------------------------------------

    def _advance(self, operation: RunningOperation) -> None:
        self.current, operation.waits_for = operation, None
        try:
            if operation.to_throw is not None:
                error, operation.to_throw = operation.to_throw, None
                operation.waits_for = operation.coroutine.throw(error)
            else:
                operation.waits_for = operation.coroutine.send(None)
        except StopIteration as stop:
            operation.is_done, operation.result = True, stop.value
        except BaseException as error:
            operation.is_done, operation.error = True, error
        finally:
            self.current = None

    def turn(self) -> bool:
        """Run one operation to its next suspension, or let time pass to the next due instant; `False` at rest."""
        if self.ready:
            operation = self.ready.popleft()
            if not operation.is_done:
                self._advance(operation)
            return True
        waiting = [
            operation for operation in self.operations if not operation.is_done and operation.waits_for is not None
        ]
        for operation in waiting:
            if operation.waits_for.is_over() or operation.waits_for.deadline <= self.time:
                self._advance(operation)
                return True
        deadlines = [operation.waits_for.deadline for operation in waiting if operation.waits_for.deadline != inf]
        if self.timers and self.timers[0][0] <= min([self.time, *deadlines]):
            heapq.heappop(self.timers)[2]()
            return True
        if not deadlines:  # no operation waits for time: a timer alone changes nothing that matters here
            return False
        self.time = max(self.time, min([*deadlines, *(when for when, _, _ in self.timers[:1])]))
        return True

    def run(self, coroutine: Coroutine[Any, Any, Any], plan: InterruptPlan | None = None) -> Any:
        """Run an operation in the foreground until it has ended; returns its result or raises its error."""
        self.plan = plan or InterruptPlan()
        self.foreground = operation = self.start(coroutine, "foreground")
        for _ in range(5000):
            if operation.is_done:
                break
            assert self.turn(), f"the operation hangs after {self.plan.steps}"
        else:
            raise AssertionError(f"the operation never ends: {self.plan.steps[-10:]}")
        self.foreground = None
        self.operations = [other for other in self.operations if not other.is_done]
        if operation.error is not None:
            raise operation.error
        return operation.result

    def rest(self) -> None:
        """Run all operations until none can go on."""
        for _ in range(5000):
            if not self.turn():
                self.operations = [operation for operation in self.operations if not operation.is_done]
                return
        raise AssertionError("no rest")
