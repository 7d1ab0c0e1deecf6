"""What a request costs: open it, resolve services that share one pooled value, give that back, close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dependency_injector import providers

from pooling import AsyncPoolingService, PoolingService
from pooling.di import AsyncPool, Container, Factory, Inject, Pool, Pooled, inject

from . import peers
from .measure import Metric, Race, Racer, Scale, Target, timed
from .peers import Resource
from .uncontended import in_loop

OURS_RESOLVED = "pooling.di, app.get(key)"
OURS_INJECTED = "pooling.di, @inject"
OURS_USED = "pooling.di"
OURS_CALLED = "pooling.di, app.service()"
OURS_PLAIN = "pooling.di, providers.Factory"
OURS_AWAITED = "pooling.di, app.service.aget()"
BY_HAND = "by hand"
DISHKA, SVCS = "dishka", "svcs"
GRAPH = (
    "A service made of a repository made of a pooled value; the pool is the same kind for all, ours with 8 resources. "
    "The two factories are `di.Factory`, but for `providers.Factory`: that is `app.service()` of the library's own."
)
PER_LOOK_UP = Metric("seconds", "per use", "ns", 1e9)
PER_REQUEST = Metric("seconds", "per request", "µs", 1e6)


class Repo:
    def __init__(self, value: Resource) -> None:
        self.value = value


class Service:
    def __init__(self, repo: Repo) -> None:
        self.repo = repo


class App(Container):
    pool = Pool(Resource, max_size=8)
    value = Pooled(pool)
    repo = Factory(Repo, value=value)
    service = Factory(Service, repo=repo)
    plain = providers.Factory(Service, repo=providers.Factory(Repo, value=value))


class AsyncApp(Container):
    pool = AsyncPool(Resource, max_size=8)
    value = Pooled(pool)
    repo = Factory(Repo, value=value)
    service = Factory(Service, repo=repo)


@inject
def handler(service: Service = Inject[App.service]) -> Service:
    return service


@inject
async def async_handler(service: Service = Inject[AsyncApp.service]) -> Service:
    return service


# --- threads ---------------------------------------------------------------------------------------------------------


def dishka_loop(pool: PoolingService[Resource]) -> Callable[[int], None]:
    from dishka import Provider, Scope, make_container

    provider = Provider(scope=Scope.REQUEST)

    def value() -> Iterator[Resource]:
        taken = pool.acquire()
        yield taken
        pool.release(taken)

    provider.provide(value, provides=Resource)
    provider.provide(Repo)
    provider.provide(Service)
    container = make_container(provider)

    def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            with container() as request:
                request.get(Service)

    return loop


def svcs_loop(pool: PoolingService[Resource]) -> Callable[[int], None]:
    import svcs

    registry = svcs.Registry()

    def value() -> Iterator[Resource]:
        taken = pool.acquire()
        yield taken
        pool.release(taken)

    def repo(svcs_container: svcs.Container) -> Repo:
        return Repo(svcs_container.get(Resource))

    def service(svcs_container: svcs.Container) -> Service:
        return Service(svcs_container.get(Repo))

    registry.register_factory(Resource, value)
    registry.register_factory(Repo, repo)
    registry.register_factory(Service, service)

    def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            with svcs.Container(registry) as request:
                request.get(Service)

    return loop


@contextmanager
def request(scale: Scale) -> Iterator[Race]:
    """A request in a thread."""
    app = App()
    app.start()
    pool = PoolingService(Resource, max_size=8)

    def resolved(repetitions: int) -> None:
        for _ in range(repetitions):
            with app.request():
                app.get("service")

    def called(repetitions: int) -> None:
        for _ in range(repetitions):
            with app.request():
                app.service()

    def plain(repetitions: int) -> None:
        for _ in range(repetitions):
            with app.request():
                app.plain()

    def injected(repetitions: int) -> None:
        for _ in range(repetitions):
            with app.request():
                handler()

    def by_hand(repetitions: int) -> None:
        for _ in range(repetitions):
            with pool.lease() as value:
                Service(Repo(value))

    racers = [
        Racer(BY_HAND, timed(by_hand)),
        Racer(OURS_RESOLVED, timed(resolved), is_ours=True),
        Racer(OURS_INJECTED, timed(injected), is_ours=True),
        Racer(OURS_CALLED, timed(called), is_ours=True),
        Racer(OURS_PLAIN, timed(plain), is_ours=True),
    ]
    missing = []
    for name, build in ((DISHKA, dishka_loop), (SVCS, svcs_loop)):
        if peers.is_installed(name):
            racers.append(Racer(name, timed(build(pool))))
        else:
            missing.append(f"{name}: not installed")
    try:
        yield Race(
            "request",
            "a request in a thread",
            GRAPH,
            racers,
            metrics=(PER_REQUEST,),
            reference=BY_HAND,
            targets=[
                Target("seconds", OURS_RESOLVED, 1.0, DISHKA),
                Target("seconds", OURS_CALLED, 1.0, DISHKA),
                Target("seconds", OURS_RESOLVED, 1.0, SVCS),
                Target("seconds", OURS_INJECTED, 1.0, SVCS),
            ],
            missing=missing,
        )
    finally:
        app.stop()
        pool.stop()


# --- asyncio ---------------------------------------------------------------------------------------------------------


def async_dishka_loop(pool: AsyncPoolingService[Resource]) -> Callable[[int], Awaitable[None]]:
    from dishka import Provider, Scope, make_async_container

    provider = Provider(scope=Scope.REQUEST)

    async def value() -> AsyncIterator[Resource]:
        taken = await pool.acquire()
        yield taken
        await pool.release(taken)

    provider.provide(value, provides=Resource)
    provider.provide(Repo)
    provider.provide(Service)
    container = make_async_container(provider)

    async def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            async with container() as request:
                await request.get(Service)

    return loop


def async_svcs_loop(pool: AsyncPoolingService[Resource]) -> Callable[[int], Awaitable[None]]:
    import svcs

    registry = svcs.Registry()

    async def value() -> AsyncIterator[Resource]:
        taken = await pool.acquire()
        yield taken
        await pool.release(taken)

    async def repo(svcs_container: svcs.Container) -> Repo:
        return Repo(await svcs_container.aget(Resource))

    async def service(svcs_container: svcs.Container) -> Service:
        return Service(await svcs_container.aget(Repo))

    registry.register_factory(Resource, value)
    registry.register_factory(Repo, repo)
    registry.register_factory(Service, service)

    async def loop(repetitions: int) -> None:
        for _ in range(repetitions):
            async with svcs.Container(registry) as request:
                await request.aget(Service)

    return loop


@contextmanager
def request_asyncio(scale: Scale) -> Iterator[Race]:
    """A request in a task."""
    app = AsyncApp()

    async def set_up() -> AsyncPoolingService[Resource]:
        await app.astart()
        pool = AsyncPoolingService(Resource, max_size=8)
        await pool.start()
        return pool

    with asyncio.Runner() as runner:
        pool = runner.run(set_up())

        async def resolved(repetitions: int) -> None:
            for _ in range(repetitions):
                async with app.request():
                    await app.aget("service")

        async def awaited(repetitions: int) -> None:
            for _ in range(repetitions):
                async with app.request():
                    await app.service.aget()

        async def injected(repetitions: int) -> None:
            for _ in range(repetitions):
                async with app.request():
                    await async_handler()

        async def by_hand(repetitions: int) -> None:
            for _ in range(repetitions):
                async with pool.lease() as value:
                    Service(Repo(value))

        racers = [
            Racer(BY_HAND, in_loop(runner, by_hand)),
            Racer(OURS_RESOLVED, in_loop(runner, resolved), is_ours=True),
            Racer(OURS_INJECTED, in_loop(runner, injected), is_ours=True),
            Racer(OURS_AWAITED, in_loop(runner, awaited), is_ours=True),
        ]
        missing = []
        for name, build in ((DISHKA, async_dishka_loop), (SVCS, async_svcs_loop)):
            if peers.is_installed(name):
                racers.append(Racer(name, in_loop(runner, build(pool))))
            else:
                missing.append(f"{name}: not installed")
        try:
            yield Race(
                "request-asyncio",
                "a request in a task",
                GRAPH,
                racers,
                metrics=(PER_REQUEST,),
                reference=BY_HAND,
                targets=[
                    Target("seconds", OURS_RESOLVED, 1.0, DISHKA),
                    Target("seconds", OURS_INJECTED, 1.0, DISHKA),
                    Target("seconds", OURS_AWAITED, 1.0, DISHKA),
                    Target("seconds", OURS_INJECTED, 1.0, SVCS),
                ],
                missing=missing,
            )
        finally:
            runner.run(app.astop())
            runner.run(pool.stop())


# --- a second use ----------------------------------------------------------------------------------------------------


@contextmanager
def second_use(scale: Scale) -> Iterator[Race]:
    """The value of a request, asked for again."""
    app = App()
    app.start()
    var: ContextVar[dict[str, Any]] = ContextVar("benchmark")
    var.set({"value": Resource()})

    def looked_up(repetitions: int) -> None:
        for _ in range(repetitions):
            var.get()["value"]

    def resolved(repetitions: int) -> None:
        value = app.value
        for _ in range(repetitions):
            value()

    reference = "dict in a ContextVar"
    with app.request():
        app.value()
        yield Race(
            "second-use",
            "the request's value again",
            "`app.value()` where the request has it already, beside `var.get()['value']`.",
            [Racer(reference, timed(looked_up)), Racer(OURS_USED, timed(resolved), is_ours=True)],
            metrics=(PER_LOOK_UP,),
            reference=reference,
            targets=[Target("seconds", OURS_USED, 3.0, reference)],
        )
    app.stop()
