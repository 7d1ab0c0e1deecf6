"""
Interrupts at every await of every operation, before and after the step took effect.

Each operation, with each behaviour of its hooks, first runs without an interrupt to count its awaits, then once for
each of them. Afterwards the pool's capacity must be complete, no resource out without a borrower and no waiter lost,
and the caller must have seen the interrupt itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pooling._engine.call_site import Borrower
from pooling._engine.engine import Engine
from pooling._engine.hooks import Hooks
from pooling._engine.operations.background import CheckSlot, CloseSlot, OpenSlot
from pooling.errors import CreateError, PoolingError, PoolTimeoutError
from pooling.factory import PoolFactory
from pooling.options import PoolingServiceOptions

from .fake_backend import AFTER, BEFORE, FakeBackend, Hang, InterruptPlan, Suspension

NOWHERE = Borrower(None, 0, None, None, None)
SIZE = 2
HOOKS = ("create", "validate", "acquire", "release", "destroy")
WORKS, FAILS, HANGS = "works", "fails", "hangs"


class Thing:
    pass


class Workshop:
    """Hooks that do as they are told; every hook counts what exists."""

    def __init__(self, **behaviour: str) -> None:
        self.behaviour = behaviour
        self.made: list[Thing] = []
        self.unmade: list[Thing] = []

    def _behave(self, hook: str) -> Any:
        behaviour = self.behaviour.get(hook, WORKS)
        if behaviour == FAILS:
            raise OSError(f"{hook} fails")
        return Hang() if behaviour == HANGS else None

    def create(self) -> Any:
        outcome = self._behave("create")
        if outcome is None:
            outcome = Thing()
            self.made.append(outcome)
        return outcome

    def destroy(self, value: Thing) -> Any:
        self.unmade.append(value)
        return self._behave("destroy")

    def validate(self, value: Thing) -> Any:
        return self._behave("validate") or True

    def acquire(self, value: Thing, ctx: Any) -> Any:
        return self._behave("acquire")

    def release(self, value: Thing) -> Any:
        return self._behave("release")


@dataclass
class Pool:
    """A pool on the fake backend."""

    workshop: Workshop
    backend: FakeBackend
    engine: Engine

    def take(self, timeout: float = 5.0) -> Any:
        return self.engine.take(None, timeout, 0, NOWHERE)

    def heal(self) -> None:
        """Let all hooks work from now on, after those that hang have timed out."""
        self.workshop.behaviour.clear()
        self.backend.rest()

    def must_be_whole(self, held: list[Any], plan: InterruptPlan) -> None:
        """Check that only `held` is out, and that all the rest can be acquired at once, each once."""
        ledger = self.engine.ledger
        self.heal()
        self.backend.run(self.engine.start(None, waits=True))
        assert [slot.value for slot in ledger.out.values()] == held, "a resource is out without a borrower"
        assert not ledger.waiting, "a borrower that has left is still in the queue"
        while len(held) < SIZE:
            held.append(self.backend.run(self.take()))
        assert len(set(held)) == SIZE == len(ledger.out)
        assert set(held) <= set(self.workshop.made) - set(self.workshop.unmade), "something destroyed is handed out"
        for value in held:
            assert self.backend.run(self.engine.give_back(value, None))
        self.backend.rest()
        self.backend.run(self.engine.stop(5.0, drains=True))
        self.backend.rest()
        assert not ledger.slots
        assert len(set(self.workshop.unmade)) == len(self.workshop.unmade), "something was destroyed twice"
        # A hook cut short keeps to itself what it has made; one cut off before it began has unmade nothing.
        beyond_reach = plan.cut.count(("call create", AFTER)) + plan.cut.count(("call destroy", BEFORE))
        assert len(self.workshop.made) - len(self.workshop.unmade) == beyond_reach, "each is destroyed once"


def pool_of(behaviour: dict[str, str], engine_type: type[Engine] = Engine, **options: Any) -> Pool:
    workshop = Workshop()
    options = {
        "max_size": SIZE,
        "timeout": 5.0,
        "create_timeout": 3.0,
        "destroy_timeout": 2.0,
        "validate_on_acquire": True,
        "validate_on_release": True,
        **options,
    }
    backend = FakeBackend()
    hooks = Hooks(PoolFactory.of(**{name: getattr(workshop, name) for name in HOOKS}))
    pool = Pool(workshop, backend, engine_type(hooks, PoolingServiceOptions(**options), backend, name="driven"))
    workshop.behaviour.update(behaviour)
    return pool


# Each prepares a pool, and gives the operation to interrupt, what the caller holds before, and what after its result.
Operation = Callable[[dict[str, str], type[Engine]], tuple[Pool, Any, list[Any], Callable[[Any], list[Any]]]]


def taking_idle(behaviour, engine_type):
    pool = pool_of({}, engine_type)
    pool.backend.run(pool.engine.give_back(pool.backend.run(pool.take()), None))
    pool.workshop.behaviour.update(behaviour)
    return pool, pool.take(), [], lambda value: [value]


def taking_new(behaviour, engine_type):
    pool = pool_of(behaviour, engine_type)
    return pool, pool.take(), [], lambda value: [value]


def taking_what_comes_back(behaviour, engine_type):
    pool = pool_of({}, engine_type)
    mine, theirs = pool.backend.run(pool.take()), pool.backend.run(pool.take())
    pool.workshop.behaviour.update(behaviour)

    async def others():
        await Suspension(lambda: pool.engine.ledger.waiting > 0, pool.backend.time + 1)
        with contextlib.suppress(PoolingError):
            await pool.engine.give_back(theirs, None)

    coroutine = pool.take()
    pool.backend.start(others(), "others")
    return pool, coroutine, [mine], lambda value: [mine, value]


def giving_back(behaviour, engine_type):
    pool = pool_of({}, engine_type)
    mine, other = pool.backend.run(pool.take()), pool.backend.run(pool.take())
    pool.workshop.behaviour.update(behaviour)
    return pool, pool.engine.give_back(mine, None), [other], lambda value: [other]


def destroying(behaviour, engine_type):
    pool = pool_of({}, engine_type)
    mine, other = pool.backend.run(pool.take()), pool.backend.run(pool.take())
    pool.workshop.behaviour.update(behaviour)
    return pool, pool.engine.destroy(mine), [other], lambda value: [other]


def starting(behaviour, engine_type):
    pool = pool_of(behaviour, engine_type, min_size=SIZE)

    async def start_again_if_stopped():
        await pool.engine.start(None, waits=True)

    return pool, start_again_if_stopped(), [], lambda value: []


def stopping(behaviour, engine_type):
    pool = pool_of({}, engine_type)
    pool.backend.run(pool.engine.give_back(pool.backend.run(pool.take()), None))
    pool.workshop.behaviour.update(behaviour)
    return pool, pool.engine.stop(1.0, drains=True), [], lambda value: []


# In the foreground stands what is otherwise background work.
def opening(behaviour, engine_type):
    pool = pool_of(behaviour, engine_type)
    pool.engine.ledger.resize(1, SIZE, pool.backend.time)
    pool.engine.ledger.start(pool.backend.time)
    (item,) = pool.engine.ledger.outbox
    pool.engine.ledger.outbox.clear()
    return pool, OpenSlot(pool.engine, item.slot), [], lambda value: []


def closing(behaviour, engine_type):
    pool = pool_of({}, engine_type)
    pool.backend.run(pool.engine.give_back(pool.backend.run(pool.take()), None))
    pool.workshop.behaviour.update(behaviour)
    pool.engine.ledger.expire(pool.backend.time)
    (item,) = pool.engine.ledger.outbox
    pool.engine.ledger.outbox.clear()
    return pool, CloseSlot(pool.engine, item.slot), [], lambda value: []


def checking(behaviour, engine_type):
    pool = pool_of({}, engine_type, validate_idle=1.0)
    pool.backend.run(pool.engine.give_back(pool.backend.run(pool.take()), None))
    pool.workshop.behaviour.update(behaviour)
    pool.backend.time += 10
    pool.engine.ledger.sweep(pool.backend.time)
    pool.backend.time += 10
    pool.engine.ledger.sweep(pool.backend.time)
    (item,) = pool.engine.ledger.outbox
    pool.engine.ledger.outbox.clear()
    return pool, CheckSlot(pool.engine, item.slot), [], lambda value: []


OPERATIONS = [
    taking_idle,
    taking_new,
    taking_what_comes_back,
    giving_back,
    destroying,
    starting,
    stopping,
    opening,
    closing,
    checking,
]
INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt)


def play(
    operation: Operation, behaviour: dict[str, str], plan: InterruptPlan, engine_type: type[Engine] = Engine
) -> None:
    """Run an operation with a plan of interrupts, then check every promise."""
    pool, coroutine, before, after = operation(behaviour, engine_type)
    began = pool.backend.time
    seen: BaseException | None = None
    held = before
    try:
        held = after(pool.backend.run(coroutine, plan))
    except BaseException as error:
        seen = error
    if plan.raised:
        assert seen is plan.raised[-1], f"the caller saw {seen!r} instead of the interrupt"
    else:
        assert seen is None or isinstance(seen, (PoolingError, OSError)), seen
    if not behaviour and not plan.raised:
        assert pool.backend.time == began, "if every hook works, no operation waits for time to pass"
    pool.must_be_whole(held, plan)


def steps_of(operation: Operation, behaviour: dict[str, str]) -> int:
    plan = InterruptPlan()
    play(operation, behaviour, plan)
    return len(plan.steps)


BEHAVIOURS = [{}, *({hook: how} for hook in HOOKS for how in (FAILS, HANGS))]


def called(behaviour: dict[str, str]) -> str:
    return " ".join(f"{hook} {how}" for hook, how in behaviour.items()) or "all work"


PASSED = {  # the hooks that an operation runs, and so may differ in
    taking_idle: {"validate", "acquire", "destroy"},
    taking_new: {"create", "validate", "acquire", "destroy"},
    taking_what_comes_back: {"validate", "acquire", "release", "destroy"},
    giving_back: {"release", "validate", "destroy"},
    destroying: {"destroy"},
    starting: {"create"},
    stopping: {"destroy"},
    opening: {"create"},
    closing: {"destroy"},
    checking: {"validate", "destroy"},
}
CASES = [
    pytest.param(operation, behaviour, id=f"{operation.__name__}-{called(behaviour)}")
    for operation in OPERATIONS
    for behaviour in BEHAVIOURS
    if PASSED[operation].issuperset(behaviour)
]


def test_a_validation_that_always_fails_ends_at_the_timeout_with_few_creates():
    pool = pool_of({"validate": FAILS}, create_backoff=0.05, create_backoff_max=2.0)
    began = pool.backend.time
    with pytest.raises(PoolTimeoutError):
        pool.backend.run(pool.take(timeout=30.0))
    assert 29.0 < pool.backend.time - began <= 30.0
    assert len(pool.workshop.made) < 30


def test_is_final_is_never_called_under_the_lock():
    pool = pool_of({"create": FAILS}, min_size=1)
    depth = []

    class Lock:
        def __enter__(self):
            depth.append(self)

        def __exit__(self, *_):
            depth.pop()

    def is_final(error):
        assert not depth
        return True

    pool.backend.lock = Lock()
    pool.engine.hooks.is_final = is_final
    with pytest.raises(CreateError):
        pool.backend.run(pool.engine.start(None, waits=True))


@pytest.fixture(autouse=True)
def _quietly(caplog):
    caplog.set_level(logging.CRITICAL, logger="pooling")


@pytest.mark.parametrize(("operation", "behaviour"), CASES)
def test_an_interrupt_at_any_await_loses_nothing_and_is_seen(operation, behaviour):
    for number in range(1, min(steps_of(operation, behaviour), 12) + 1):
        for place, error in itertools.product((BEFORE, AFTER), INTERRUPTS):
            play(operation, behaviour, InterruptPlan({number: (place, error)}))


@pytest.mark.parametrize(("operation", "behaviour"), CASES)
def test_a_second_interrupt_while_the_first_is_handled_loses_nothing(operation, behaviour):
    for number in range(1, min(steps_of(operation, behaviour), 6) + 1):
        for first, second in itertools.product((BEFORE, AFTER), repeat=2):
            interrupts = {number: (first, asyncio.CancelledError)}
            plan = InterruptPlan(interrupts)
            play(operation, behaviour, plan)
            for later in range(number + 1, min(len(plan.steps), number + 4) + 1):
                play(operation, behaviour, InterruptPlan({**interrupts, later: (second, KeyboardInterrupt)}))
