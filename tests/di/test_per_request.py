"""`PerRequest`: one object for each request, made of what the request has, and cleaned up after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from dependency_injector import containers, providers

from pooling import ConfigurationError, PoolFactory, RequestContext, RequestContextError, di
from pooling._request.answer import agive_back
from pooling.di import Inject, inject


class User:
    def __init__(self) -> None:
        self.saved = 0


class Users(PoolFactory[User]):
    def create(self) -> User:
        return User()

    def checkpoint(self, value: User) -> None:
        LOG.append("commit")

    def release(self, value: User) -> None:
        LOG.append("given back")


LOG: list[object] = []


@pytest.fixture(autouse=True)
def log():
    LOG.clear()
    return LOG


class Unit:
    """A unit of work."""

    def __init__(self, user: User | None = None) -> None:
        self.user = user
        LOG.append("made")

    def flush(self) -> None:
        LOG.append("flush")

    async def aflush(self) -> None:
        await asyncio.sleep(0)
        LOG.append("flush")


def unit_of(user: User) -> Iterator[Unit]:
    try:
        yield Unit(user)
    except LookupError as error:
        LOG.append(error)
        raise
    finally:
        LOG.append("closed")


async def aunit_of(user: User) -> AsyncIterator[Unit]:
    await asyncio.sleep(0)
    try:
        yield Unit(user)
    except LookupError as error:
        LOG.append(error)
        raise
    finally:
        await asyncio.sleep(0)
        LOG.append("closed")


async def make_unit(user: User) -> Unit:
    await asyncio.sleep(0)
    return Unit(user)


class Service:
    def __init__(self, unit: Unit, other: Unit, user: User) -> None:
        self.unit, self.other, self.user = unit, other, user


class Threads(di.Container):
    users = di.Pool(Users())
    user = di.Pooled(users)
    unit = di.PerRequest(unit_of, user, checkpoint="flush")
    plain = di.PerRequest(Unit, user=user)
    service = di.Factory(Service, unit, unit, user)
    plain_service = providers.Factory(Service, plain, plain, user)


class Loop(di.Container):
    users = di.AsyncPool(Users())
    user = di.Pooled(users)
    unit = di.PerRequest(aunit_of, user, checkpoint="aflush")
    made = di.PerRequest(make_unit, user)
    in_loop = di.PerRequest(unit_of, user, checkpoint=Unit.aflush)
    service = di.Factory(Service, unit, unit, user)
    made_service = providers.Factory(Service, made, made, user)
    in_loop_service = di.Factory(Service, in_loop, in_loop, user)


def test_a_request_has_one_object_and_the_next_one_another():
    app = Threads()
    with app.running():
        with app.request() as ctx:
            service = app.service()
            assert service.unit is service.other is app.unit()
            assert service.unit.user is service.user
            assert app.plain_service().unit is app.plain()
            ctx.checkpoint()
            assert LOG == ["made", "made", "flush", "commit"]
        assert LOG[4:] == ["closed", "given back"], "in the reverse order of making"
        with app.request():
            assert app.unit() is not service.unit


def test_the_error_of_a_request_is_seen_and_stays_the_requests():
    app, error = Threads(), LookupError("in the handler")
    with app.running():
        with pytest.raises(LookupError) as raised, app.request():
            app.unit()
            raise error
        assert raised.value is error
        assert ["made", error, "closed", "given back"] == LOG


@pytest.mark.parametrize("name", ["service", "made_service", "in_loop_service"])
async def test_inject_awaits_what_an_object_is_made_of_and_then_the_object(name):
    app = Loop()

    @inject
    async def serve(service: Service = Inject[name]) -> Service:
        assert service.unit is service.other
        assert service.unit.user is service.user
        return service

    async with app.running():
        async with app.request() as ctx:
            first = await serve()
            assert (await serve()).unit is first.unit
            await ctx.acheckpoint()
        assert [step for step in LOG if step != "closed"] == (
            ["made", "commit", "given back"] if name == "made_service" else ["made", "flush", "commit", "given back"]
        )
        assert LOG[-1] == "given back"
        with pytest.raises(LookupError):
            async with app.request():
                await serve()
                raise LookupError


async def test_tasks_that_ask_at_once_have_one_object_and_a_cancelled_one_does_not_take_it_from_the_others():
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly() -> Unit:
        begun.set()
        await gate.wait()
        return Unit()

    class App(di.Container):
        unit = di.PerRequest(slowly)

    app = App()
    async with app.running(), app.request():
        tasks = [asyncio.create_task(app.unit.aget()) for _ in range(3)]
        await begun.wait()
        tasks[0].cancel()
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] is results[2] is app.unit()
        assert LOG == ["made"]


def test_threads_that_ask_at_once_have_one_object():
    both = threading.Barrier(4)
    app = Threads()

    def ask() -> Unit:
        both.wait(10)
        with ctx.active():
            return app.unit()

    with app.running(), app.request() as ctx, ThreadPoolExecutor(4) as threads:
        assert len({id(made.result()) for made in [threads.submit(ask) for _ in range(4)]}) == 1
        assert LOG == ["made"]


def test_a_failure_is_the_callers_and_the_next_call_tries_again():
    outcomes = iter([OSError("away"), None])

    def make() -> Unit:
        if (error := next(outcomes)) is not None:
            raise error
        return Unit()

    class App(di.Container):
        unit = di.PerRequest(make)

    app = App()
    with app.running(), app.request():
        with pytest.raises(OSError, match="away"):
            app.unit()
        assert isinstance(app.unit(), Unit)


def test_overriding_what_it_is_made_of_and_the_object_itself():
    app, fake = Threads(), User()
    with app.running():
        with app.user.override(providers.Object(fake)), app.request():
            assert app.service().unit.user is fake
        unit = Unit()
        with app.unit.override(unit), app.request():
            assert app.service().unit is unit
            assert app.users().borrowed == 1
        with app.unit.override(di.PerRequest(Unit)), app.request():
            assert app.service().unit is app.unit()
        with app.request():
            assert app.service().unit is not unit


async def test_overriding_with_one_that_must_be_awaited():
    app = Loop()

    async def instead() -> AsyncIterator[Unit]:
        yield Unit()
        LOG.append("closed")

    async with app.running():
        with app.unit.override(di.PerRequest(instead)):
            async with app.request():
                assert (await app.service.aget()).unit is await app.unit.aget()
        assert LOG[-2:] == ["given back", "closed"] or LOG[-2:] == ["closed", "given back"]


def test_a_child_of_a_request_has_its_own():
    app = Threads()
    with app.running(), app.request() as ctx:
        unit = app.unit()
        with ctx.child(user="another").active():
            assert app.unit() is not unit
            assert app.unit().user is unit.user, "the pooled value is the request's"


def test_what_lives_longer_than_a_request_may_not_keep_it():
    class App(di.Container):
        unit = di.PerRequest(Unit)
        keeper = providers.Singleton(Service, unit, unit, None)

    with pytest.raises(ConfigurationError, match=r"keeper \(Singleton\) -> unit \(PerRequest\)"):
        App().start()

    class Plain(containers.DeclarativeContainer):
        unit = di.PerRequest(Unit)
        keeper = providers.Singleton(Service, unit, unit, None)

    with pytest.raises(ConfigurationError, match="lives longer than a request"), RequestContext():
        Plain().unit()


async def test_a_call_that_would_have_to_wait_says_what_to_do():
    app = Loop()
    async with app.running():
        with pytest.raises(RequestContextError, match="no request is open here"):
            app.unit()
        async with app.request() as ctx:
            with pytest.raises(RequestContextError, match=r"make_unit.* has not been made .*aget\(\)"):
                app.made()
        with pytest.raises(RequestContextError, match="has ended"), ctx.active():
            app.made()
    with pytest.raises(ConfigurationError, match="is a declaration"), RequestContext():
        Threads.unit()


def test_without_a_loop_what_must_be_awaited_is_refused():
    class App(di.Container):
        unit = di.PerRequest(lambda: make_unit(User()))

    with App().running() as app, app.request():
        with pytest.raises(RequestContextError, match="must be awaited"):
            app.unit()
        assert LOG == []


def test_arguments_that_cannot_work_are_refused():
    with pytest.raises(ConfigurationError, match="make=3"):
        di.PerRequest(3)
    with pytest.raises(ConfigurationError, match="checkpoint=3"):
        di.PerRequest(Unit, checkpoint=3)

    class App(di.Container):
        unit = di.PerRequest(Unit, checkpoint="nothing")

    with App().running() as app, app.request() as ctx:
        app.unit()
        with pytest.raises(ConfigurationError, match="checkpoint='nothing' names no method of Unit"):
            ctx.checkpoint()


async def test_its_pooled_values_stay_as_long_as_it_does():
    app = Loop()

    @inject
    async def serve(user: User = Inject["user", "handler"], unit: Unit = Inject["unit"]) -> None:
        assert unit.user is user

    async with app.running(), app.request() as ctx:
        await serve()
        await agive_back(ctx, "handler", "end")
        assert app.users().borrowed == 1


def test_a_provider_may_make_it():
    class App(di.Container):
        unit = di.PerRequest(providers.Factory(Unit, user=providers.Factory(User)))

    with App().running() as app, app.request():
        assert isinstance(app.unit().user, User)
        assert app.unit() is app.unit()
