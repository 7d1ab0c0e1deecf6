"""Things to pool, and a record of all that happens to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pooling import PoolEvent, PoolFactory, PoolObserver
from pooling.locks import make_lock

STEPS = ("destroy", "validate", "acquire", "release")


class Thing:
    """A resource."""

    def __init__(self) -> None:
        self.serial = 0
        self.holder: Any = None
        self.notes: list[Any] = []

    def __repr__(self) -> str:
        return f"<Thing {self.serial}>"

    def take(self, who: Any) -> None:
        """A borrower sets its mark; there must be no other."""
        assert self.holder is None, f"{self!r} has two holders: {self.holder!r} and {who!r}"
        self.holder = who

    def leave(self, who: Any) -> None:
        assert self.holder is who, f"{self!r} was held by {self.holder!r} when {who!r} left it"
        self.holder = None


class Workshop:
    """
    A factory with replaceable steps, which records its calls.

    Args:
        side: The front end it works for.
        create, destroy, validate, acquire, release: What these steps do besides, as `async def`; called with the
            thing (`create` without), `acquire` with the context too. A step without such a function has no hook.
        thing: What it makes.
        plain: Other methods of `PoolFactory`, such as `is_alive` or `is_final`.
    """

    def __init__(
        self,
        side: Any,
        *,
        create: Callable[[], Any] | None = None,
        thing: Callable[[], Any] = Thing,
        plain: dict[str, Callable[..., Any]] | None = None,
        **steps: Callable[..., Any],
    ) -> None:
        assert not set(steps) - set(STEPS)
        self.lock = make_lock()
        self.made: list[Any] = []
        self.unmade: list[Any] = []  # when its destroy began
        self.gone = 0  # destroys that have ended
        self.standing = 0  # as the factory sees it: made, and its destroy has not ended
        self.most = 0
        self.creating = 0
        self.most_creating = 0
        self.calls: Counter[str] = Counter()
        self._create = create
        self._thing = thing
        self._steps = steps
        self.factory: PoolFactory[Any] = PoolFactory()
        self.factory.create = side.hook(self._making)
        self.factory.destroy = side.hook(self._unmaking)
        for name in ("validate", "acquire", "release"):
            if name in steps:
                setattr(self.factory, name, side.hook(self._counted(name, steps[name])))
        for name, method in (plain or {}).items():
            setattr(self.factory, name, method)

    def _counted(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any) -> Any:
            with self.lock:
                self.calls[name] += 1
            return await step(*args)

        return counted

    async def _making(self) -> Any:
        with self.lock:
            self.calls["create"] += 1
            self.creating += 1
            self.most_creating = max(self.most_creating, self.creating)
        try:
            if self._create is not None:
                await self._create()
        finally:
            with self.lock:
                self.creating -= 1
        thing = self._thing()
        with self.lock:
            self.made.append(thing)
            if isinstance(thing, Thing):
                thing.serial = len(self.made)
            self.standing += 1
            self.most = max(self.most, self.standing)
        return thing

    async def _unmaking(self, thing: Any) -> None:
        with self.lock:
            self.calls["destroy"] += 1
            self.unmade.append(thing)
        try:
            if "destroy" in self._steps:
                await self._steps["destroy"](thing)
        finally:
            with self.lock:
                self.standing -= 1
                self.gone += 1

    def is_even(self) -> bool:
        """Whether everything that was created was destroyed once."""
        return sorted(map(id, self.made)) == sorted(map(id, self.unmade)) and self.standing == 0

    def uneven(self) -> str:
        return f"made {self.made!r}, unmade {self.unmade!r}, standing {self.standing}"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float, *pools: Any) -> None:
        """Let time pass, then have these pools sweep."""
        self.now += seconds
        for pool in pools:
            pool.sweep()


class Watch(PoolObserver):
    """Records every event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, PoolEvent]] = []

    def named(self, name: str) -> list[PoolEvent]:
        return [event for kind, event in self.events if kind == name]

    def on_created(self, event: PoolEvent) -> None:
        self.events.append(("created", event))

    def on_create_failed(self, event: PoolEvent) -> None:
        self.events.append(("create_failed", event))

    def on_acquired(self, event: PoolEvent) -> None:
        self.events.append(("acquired", event))

    def on_released(self, event: PoolEvent) -> None:
        self.events.append(("released", event))

    def on_destroyed(self, event: PoolEvent) -> None:
        self.events.append(("destroyed", event))

    def on_timeout(self, event: PoolEvent) -> None:
        self.events.append(("timeout", event))

    def on_leaked(self, event: PoolEvent) -> None:
        self.events.append(("leaked", event))
