"""
One scenario, two front ends.

A scenario is an `async def` that takes a `Side`. On the asyncio side it runs in a loop. On the threads side everything
it awaits blocks instead of suspending, so that one step runs it to its end. What happens at the same time is started
by `Side.go`: a thread here, a task there. Hooks are written once too, as `async def`; `Side.hook` makes of them
what the front end takes.

After each scenario the pools are stopped, and what the workshops made must have been unmade exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

import pytest

from pooling import AsyncPoolingService, PoolingService
from pooling.locks import make_lock

__pooling_internal__ = True  # the scenarios are the borrowers, not this file

LIMIT = 30.0  # seconds after which something counts as hung


class InterruptedBySignal(BaseException):
    """Like `KeyboardInterrupt`: an exception from outside, at any line."""


def finish(body: Any) -> Any:
    """Run a coroutine that never suspends; its result."""
    try:
        body.send(None)
    except StopIteration as stop:
        return stop.value
    body.close()
    raise AssertionError("something suspended on the threads side")


class PoolDriver:
    """A pool's methods, all of them awaitable on both sides."""

    def __init__(self, side: Side, service: Any) -> None:
        self.side = side
        self.service = service

    async def acquire(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("acquire", *args, **kwargs)

    async def acquire_nowait(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("acquire_nowait", *args, **kwargs)

    async def release(self, *args: Any, **kwargs: Any) -> None:
        await self._call("release", *args, **kwargs)

    async def checkpoint(self, value: Any) -> None:
        await self._call("checkpoint", value)

    async def destroy(self, value: Any) -> None:
        await self._call("destroy", value)

    async def start(self) -> None:
        await self._call("start")

    async def stop(self, *args: Any, **kwargs: Any) -> None:
        await self._call("stop", *args, **kwargs)

    async def run(self, task: Callable[[Any], Awaitable[Any]], *args: Any) -> Any:
        if self.side.name == "threads":
            return self.service.run(lambda value: finish(task(value)), *args)
        return await self.service.run(task, *args)

    def lease(self, *args: Any, **kwargs: Any) -> Any:
        return _Entered(self.service.lease(*args, **kwargs))

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self.service, name)(*args, **kwargs)
        return await result if inspect.iscoroutine(result) else result

    def __getattr__(self, name: str) -> Any:  # methods and attributes that are the same on both front ends
        return getattr(self.service, name)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()


class _Entered:
    """A context manager of either kind, as an asynchronous one."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager

    async def __aenter__(self) -> Any:
        if hasattr(self.manager, "__aenter__"):
            return await self.manager.__aenter__()
        return self.manager.__enter__()

    async def __aexit__(self, *error: object) -> Any:
        if hasattr(self.manager, "__aexit__"):
            return await self.manager.__aexit__(*error)
        return self.manager.__exit__(*error)


class Side:
    """One front end, and what a scenario needs besides pools: gates, borrowers, interrupts."""

    name: str
    can_cancel: bool  # whether any borrower can be interrupted, not only the scenario's own thread

    def __init__(self) -> None:
        self.drivers: list[PoolDriver] = []
        self.gates: list[Any] = []
        self.borrowers: list[Any] = []
        self.workshops: list[Any] = []

    # -- pools -----------------------------------------------------------------

    def pool(self, source: Any = object, **options: Any) -> PoolDriver:
        """A pool on a workshop, or on anything that a service accepts as a factory."""
        workshop = source if hasattr(source, "factory") else None
        if workshop is not None:
            self.workshops.append(workshop)
            source = workshop.factory
        options.setdefault("timeout", LIMIT)
        kind = PoolingService if self.name == "threads" else AsyncPoolingService
        driver = PoolDriver(self, kind(source, **options))
        self.drivers.append(driver)
        return driver

    def hook(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """An `async def`, as a hook of this front end."""
        raise NotImplementedError

    # -- what happens at the same time -----------------------------------------

    def go(self, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Start a borrower."""
        raise NotImplementedError

    def gate(self, *, is_open: bool = False) -> Any:
        """Something to wait at until the scenario opens it; `await gate()`."""
        raise NotImplementedError

    async def breathe(self) -> None:
        """Let other borrowers run for a moment."""
        raise NotImplementedError

    async def turn(self) -> None:
        """One turn of the loop, or of the scheduler."""
        raise NotImplementedError

    async def until(self, is_so: Callable[[], Any], what: str = "") -> None:
        """Return as soon as `is_so()` is true; fail if that takes too long."""
        ends = time.monotonic() + LIMIT
        while not is_so():
            assert time.monotonic() < ends, what or f"still not so: {inspect.getsource(is_so).strip()}"
            await self.breathe()

    async def interrupted(
        self, work: Callable[[], Awaitable[Any]], *, when: Callable[[], Any], times: int = 1
    ) -> BaseException:
        """Run `work`, interrupt it as soon as `when()` is true, and return the interrupt that it raised."""
        raise NotImplementedError

    # -- the end -----------------------------------------------------------------

    async def close(self) -> None:
        """End all waiting, stop the pools, and check the workshops."""
        for gate in self.gates:
            gate.open()
        for borrower in self.borrowers:
            await borrower.ended()
        for driver in self.drivers:
            await driver.stop(LIMIT)
            await self.until(lambda driver=driver: driver.size == 0, f"{driver!r} still has places taken")
            assert driver.pending == 0
        for workshop in self.workshops:
            await self.until(workshop.is_even, f"not unmade exactly once: {workshop.uneven()}")


class _ThreadGate:
    def __init__(self, side: Side, is_open: bool) -> None:
        self._side = side
        self._event = threading.Event()
        self._lock = make_lock()
        self.arrived = 0
        if is_open:
            self.open()

    def open(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._event.clear()

    async def __call__(self) -> None:
        with self._lock:
            self.arrived += 1
        assert self._event.wait(LIMIT * 2), "the gate was not opened"

    async def reached(self, by: int = 1) -> None:
        """Return when `by` borrowers have arrived at it."""
        await self._side.until(lambda: self.arrived >= by, f"{self.arrived} of {by} have arrived")


class _LoopGate:
    def __init__(self, side: Side, is_open: bool) -> None:
        self._side = side
        self._event = asyncio.Event()
        self.arrived = 0
        if is_open:
            self.open()

    def open(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._event.clear()

    async def __call__(self) -> None:
        self.arrived += 1
        await self._event.wait()

    async def reached(self, by: int = 1) -> None:
        await self._side.until(lambda: self.arrived >= by, f"{self.arrived} of {by} have arrived")


class _ThreadBorrower:
    def __init__(self, side: Side, work: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> None:
        self._side = side
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._lock = make_lock()
        self._may_cancel = True
        self._thread = threading.Thread(target=self._run, args=(work, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = finish(work(*args, **kwargs)), None
        except BaseException as error:
            outcome = None, error
        while self._may_cancel:
            try:
                with self._lock:
                    self._may_cancel = False
            except InterruptedBySignal as late:
                outcome = None, late
        self._outcome = outcome

    def cancel(self) -> None:
        """
        Raise an exception in the thread.

        It sees it between two steps of the interpreter, so only after what it waits for in C has ended. On Python 3.11
        a thread that is just being started has its starter's identifier for a moment, and would get the exception.
        """
        with self._lock:
            while threading._limbo:  # threads that are being started
                os.sched_yield()
            if self._may_cancel:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(InterruptedBySignal)
                )

    @property
    def is_done(self) -> bool:
        return self._outcome is not None

    async def ended(self) -> None:
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "a borrower hangs"

    async def result(self) -> Any:
        """What the borrower returned, or raised."""
        await self.ended()
        assert self._outcome is not None
        value, error = self._outcome
        if error is not None:
            raise error
        return value


class _TaskBorrower:
    def __init__(self, side: Side, work: Callable[..., Awaitable[Any]], args: Any, kwargs: Any) -> None:
        async def run() -> Any:
            return await work(*args, **kwargs)

        self.task = asyncio.ensure_future(run())

    @property
    def is_done(self) -> bool:
        return self.task.done()

    def cancel(self) -> None:
        self.task.cancel()

    async def ended(self) -> None:
        done, _ = await asyncio.wait({self.task}, timeout=LIMIT)
        assert done, "a borrower hangs"
        if not self.task.cancelled():
            self.task.exception()

    async def result(self) -> Any:
        await self.ended()
        return self.task.result()


@contextlib.contextmanager
def _interrupts_lost_in_finalizers() -> Iterator[None]:
    """What is raised in a finalizer is reported, and nothing else can be done with it; a lost interrupt is no fault."""

    def report(unraisable: Any) -> None:
        if unraisable.exc_type is not InterruptedBySignal:
            before(unraisable)

    before, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        sys.unraisablehook = before


class ThreadSide(Side):
    name = "threads"
    can_cancel = False

    def hook(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behaviour)
        def hook(*args: Any, **kwargs: Any) -> Any:
            return finish(behaviour(*args, **kwargs))

        # What `inspect` sees is the plain function, not the coroutine function it wraps.
        signature = inspect.signature(behaviour)
        del hook.__wrapped__
        hook.__signature__ = signature
        return hook

    def go(self, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> _ThreadBorrower:
        borrower = _ThreadBorrower(self, work, args, kwargs)
        self.borrowers.append(borrower)
        return borrower

    def gate(self, *, is_open: bool = False) -> _ThreadGate:
        gate = _ThreadGate(self, is_open)
        self.gates.append(gate)
        return gate

    async def breathe(self) -> None:
        time.sleep(0.0005)  # sleeps: between two looks

    async def turn(self) -> None:
        time.sleep(0)  # sleeps: no longer than a switch takes

    async def interrupted(
        self, work: Callable[[], Awaitable[Any]], *, when: Callable[[], Any], times: int = 1
    ) -> BaseException:
        # A signal is what can interrupt a thread that waits, and only the main one.
        assert threading.current_thread() is threading.main_thread(), "signals arrive in the main thread only"
        main = threading.get_ident()

        wanted = raised = 0

        async def interrupt() -> None:
            nonlocal wanted
            for _ in range(times):
                await self.until(when)
                wanted += 1
                # Again and again: one that comes an instant before the thread blocks does not end its wait.
                while raised < wanted:
                    signal.pthread_kill(main, signal.SIGUSR1)
                    await self.breathe()

        def raises(*_: object) -> None:
            nonlocal raised
            if raised < wanted:
                raised += 1
                raise InterruptedBySignal

        before = signal.signal(signal.SIGUSR1, raises)
        try:
            interrupter = self.go(interrupt)
            try:
                value = await work()
            except InterruptedBySignal as interrupt_seen:
                return interrupt_seen
            finally:
                raised = times
                await interrupter.ended()
            raise AssertionError(f"the interrupt was swallowed; the result was {value!r}")
        finally:
            signal.signal(signal.SIGUSR1, before)

    def play(self, body: Callable[..., Any], **fixtures: Any) -> None:
        async def whole() -> None:
            await body(self, **fixtures)
            await self.close()

        try:
            with _interrupts_lost_in_finalizers():
                finish(whole())
        finally:
            for gate in self.gates:  # so that no borrower of a failed scenario waits
                gate.open()


class AsyncioSide(Side):
    name = "asyncio"
    can_cancel = True

    def hook(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        return behaviour

    def go(self, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> _TaskBorrower:
        borrower = _TaskBorrower(self, work, args, kwargs)
        self.borrowers.append(borrower)
        return borrower

    def gate(self, *, is_open: bool = False) -> _LoopGate:
        gate = _LoopGate(self, is_open)
        self.gates.append(gate)
        return gate

    async def breathe(self) -> None:
        await asyncio.sleep(0.0005)  # sleeps: between two looks

    async def turn(self) -> None:
        await asyncio.sleep(0)

    async def interrupted(
        self, work: Callable[[], Awaitable[Any]], *, when: Callable[[], Any], times: int = 1
    ) -> BaseException:
        borrower = self.go(work)
        for _ in range(times):
            await self.until(when)
            borrower.cancel()
            await asyncio.sleep(0)
        try:
            value = await borrower.result()
        except asyncio.CancelledError as error:
            return error
        raise AssertionError(f"the interrupt was swallowed; the result was {value!r}")

    def play(self, body: Callable[..., Any], **fixtures: Any) -> None:
        complaints: list[Any] = []

        async def whole() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            await body(self, **fixtures)
            await self.close()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"

        asyncio.run(whole())
        assert not complaints, complaints


SIDES = (ThreadSide, AsyncioSide)


def on(*sides: type[Side]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a test of a scenario: on each of these front ends."""

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        def test(*args: Any, side: type[Side], **fixtures: Any) -> None:
            side().play(body, **fixtures)

        del test.__wrapped__
        parameters = list(inspect.signature(body).parameters.values())
        test.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in parameters])
        return pytest.mark.parametrize("side", sides, ids=[side.name for side in sides])(test)

    return decorate


def on_both(body: Callable[..., Any]) -> Callable[..., Any]:
    """Make a test of a scenario: on threads and on asyncio."""
    return on(*SIDES)(body)


def on_asyncio(body: Callable[..., Any]) -> Callable[..., Any]:
    """Make a test of a scenario that needs a loop, such as one that cancels a borrower in a queue."""
    return on(AsyncioSide)(body)


def on_threads(body: Callable[..., Any]) -> Callable[..., Any]:
    """Make a test of a scenario that needs threads."""
    return on(ThreadSide)(body)


async def whole(pool: PoolDriver) -> list[Any]:
    """Borrow all the pool can lend at once, and give it back: nothing is lost, nothing is lent twice."""
    assert pool.available <= pool.size, "something is idle twice"
    values = [await pool.acquire(timeout=LIMIT) for _ in range(pool.options.max_size)]
    assert len(set(map(id, values))) == pool.options.max_size
    assert pool.borrowed == pool.size - pool.stats().closing == pool.options.max_size
    assert pool.available == 0
    for value in values:
        await pool.release(value)
    assert pool.available <= pool.size
    return values


@contextlib.contextmanager
def raising(kind: type[BaseException], *texts: str) -> Any:
    """As `pytest.raises`, and the message must contain all of these texts."""
    with pytest.raises(kind) as caught:
        yield caught
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in {str(caught.value)!r}"
