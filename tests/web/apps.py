"""What the apps of these tests share."""

from __future__ import annotations

import asyncio
import threading

from dependency_injector import providers

from pooling import PoolFactory, di


class Thing:
    """A pooled resource."""

    is_out = False


class Ends(PoolFactory):
    """Makes things that know whether they are out, and records what ended each use."""

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    def create(self) -> Thing:
        return Thing()

    def acquire(self, value: Thing, request_ctx) -> None:
        assert not value.is_out
        value.is_out = True

    def release(self, value: Thing, exc: BaseException | None = None) -> None:
        assert value.is_out
        value.is_out = False
        self.ends.append(exc)


class Repo:
    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self.made_in = threading.current_thread().name


class CallSite(di.Container):
    """For asyncio."""

    factory = providers.Singleton(Ends)
    things = di.AsyncPool(factory, max_size=4)
    thing = di.Pooled(things)
    repo = providers.Factory(Repo, thing)


class ThreadSite(di.Container):
    """For threads."""

    factory = providers.Singleton(Ends)
    things = di.Pool(factory, max_size=4)
    thing = di.Pooled(things)
    repo = providers.Factory(Repo, thing)


class Slow(Ends):
    """Takes its time to release, and notes whether it came to the end of it."""

    async def release(self, value, exc=None):
        super().release(value, exc)
        await asyncio.sleep(0.01)  # sleeps: long enough for a cancellation to come in between
        self.ends.append("released")


class SlowSite(di.Container):
    factory = providers.Singleton(Slow)
    things = di.AsyncPool(factory)
    thing = di.Pooled(things)
