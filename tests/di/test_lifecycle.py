"""Start and stop: order, groups, rollback, errors."""

from __future__ import annotations

import asyncio
import threading

import pytest
from dependency_injector import containers, providers

from pooling import ConfigurationError, CreateError, PoolFactory, di
from tests.di.parts import App, Threaded, User


class Part:
    """A service that records its life."""

    def __init__(self, name, log, *needs):
        self.name, self.log = name, log

    def start(self):
        self.log.append(f"start {self.name}")

    def stop(self):
        self.log.append(f"stop {self.name}")


class AsyncPart(Part):
    async def start(self):
        await asyncio.sleep(0)
        super().start()

    async def stop(self):
        await asyncio.sleep(0)
        super().stop()


LOG: list[str] = []


@pytest.fixture(autouse=True)
def log():
    LOG.clear()
    return LOG


log_provider = providers.Object(LOG)


def layered():
    class Chain(di.Container):
        store = di.Managed(Part, "store", log_provider)
        cache = di.Managed(Part, "cache", log_provider, store)
        repo = providers.Factory(list, providers.List(cache))
        web = di.Managed(Part, "web", log_provider, repo)

    # The same providers under names that come in another order.
    class Shuffled(di.Container):
        a = Chain.web
        b = Chain.store
        c = Chain.cache

    return Shuffled()


def test_a_second_thread_that_starts_a_container_waits_for_the_first():
    inside, go = threading.Event(), threading.Event()

    class Slow:
        def start(self):
            inside.set()
            assert go.wait(20)
            LOG.append("started")

    class One(di.Container):
        slow = di.Managed(Slow)

    app = One()

    def second():
        app.start()
        LOG.append("second")

    first = threading.Thread(target=app.start)
    other = threading.Thread(target=second)
    first.start()
    assert inside.wait(20)
    other.start()
    other.join(0.02)  # time to get it wrong
    go.set()
    for thread in (first, other):
        thread.join(20)
        assert not thread.is_alive()
    assert LOG == ["started", "second"]
    app.stop()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_second_task_that_starts_a_container_waits_for_the_first_and_tries_if_that_fails(fails):
    inside, go, starts = asyncio.Event(), asyncio.Event(), []

    class Slow:
        async def start(self):
            starts.append(len(starts))
            inside.set()
            await go.wait()
            if fails and len(starts) == 1:
                raise OSError("the first one")

    class One(di.Container):
        slow = di.Managed(Slow)

    app = One()
    first = asyncio.create_task(app.astart())
    await inside.wait()
    second = asyncio.create_task(app.astart())
    await asyncio.sleep(0)
    assert not second.done()
    go.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [OSError if fails else type(None), type(None)]
    assert app.is_running
    assert len(starts) == 1 + fails
    await app.astop()


def test_each_service_starts_after_what_it_depends_on_and_stops_before_it(log):
    for _ in range(20):
        log.clear()
        app = layered()
        app.start()
        app.stop()
        assert log == ["start store", "start cache", "start web", "stop web", "stop cache", "stop store"]


def test_groups_start_in_their_order_and_dependencies_come_first_all_the_same(log):
    class Grouped(di.Container):
        start_order = ("stores", "workers")
        late = di.Managed(Part, "worker", log_provider, group="workers")
        early = di.Managed(Part, "store", log_provider, group="stores")
        plain = di.Managed(Part, "plain", log_provider)
        needed = di.Managed(Part, "needed", log_provider, group="workers")
        needy = di.Managed(Part, "needy", log_provider, needed, group="stores")

    app = Grouped()
    app.start()
    app.stop()
    started = ["start plain", "start store", "start needed", "start needy", "start worker"]
    assert log == started + [line.replace("start", "stop") for line in reversed(started)]


def test_a_failed_start_stops_what_had_started_in_reverse_and_raises_its_error(log):
    class Broken(Part):
        def start(self):
            raise OSError("no route")

    class Failing(di.Container):
        store = di.Managed(Part, "store", log_provider)
        cache = di.Managed(Part, "cache", log_provider, store)
        broken = di.Managed(Broken, "broken", log_provider, cache)
        never = di.Managed(Part, "never", log_provider, broken)

    app = Failing()
    with pytest.raises(OSError, match="no route"):
        app.start()
    assert log == ["start store", "start cache", "stop broken", "stop cache", "stop store"]
    assert not app.is_running


def test_a_stop_that_fails_during_rollback_is_noted_on_the_error(log):
    class Broken(Part):
        def start(self):
            raise OSError("no route")

    class Sticky(Part):
        def stop(self):
            raise LookupError("stuck")

    class Failing(di.Container):
        first = di.Managed(Part, "first", log_provider)
        sticky = di.Managed(Sticky, "sticky", log_provider, first)
        broken = di.Managed(Broken, "broken", log_provider, sticky)

    with pytest.raises(OSError, match="no route") as caught:
        Failing().start()
    assert "LookupError('stuck')" in caught.value.__notes__[0]
    assert log[-1] == "stop first"


def test_a_failed_stop_does_not_keep_the_others_from_stopping_and_comes_in_a_group(log):
    class Sticky(Part):
        def stop(self):
            raise LookupError(self.name)

    class Failing(di.Container):
        first = di.Managed(Part, "first", log_provider)
        sticky = di.Managed(Sticky, "sticky", log_provider, first)
        other = di.Managed(Sticky, "other", log_provider, sticky)

    app = Failing()
    app.start()
    with pytest.raises(ExceptionGroup) as caught:
        app.stop()
    assert [str(error) for error in caught.value.exceptions] == ["other", "sticky"]
    assert log[-1] == "stop first"
    assert not app.is_running


def test_pools_start_and_stop_with_their_container():
    app = Threaded()
    app.start()
    pool = app.users()
    assert pool.is_running
    assert app.is_running
    app.start()  # does nothing
    app.stop()
    assert not pool.is_running
    app.start()
    assert app.users().is_running
    with app.request():
        app.user()
    app.stop()


def test_a_pool_used_without_start_is_stopped_by_stop():
    app = Threaded()
    with app.request():
        app.user()
    pool = app.users()
    assert pool.is_running
    app.stop()
    assert not pool.is_running


def test_a_pool_that_was_overridden_during_its_life_is_stopped_too():
    app = Threaded()
    with app.request():
        app.user()
    pool = app.users()
    with app.users.override(di.Pool(User)):
        with app.request():
            app.user()
        other = app.users()
        app.stop()
    assert not pool.is_running
    assert not other.is_running


def test_a_pool_that_cannot_be_filled_fails_the_start_and_nothing_stays_running():
    class Hopeless(PoolFactory):
        def create(self):
            raise CreateError("gone")

    class Failing(di.Container):
        users = di.Pool(User, min_size=1)
        hopeless = di.Pool(Hopeless(), min_size=1)

    app = Failing()
    with pytest.raises(CreateError):
        app.start()
    assert not app.users().is_running
    assert app.users().size == 0


async def test_asyncio_and_thread_pools_live_in_one_container():
    app = App()
    await app.astart()
    assert app.users().is_running
    assert app.reports().is_running
    await app.astop()
    assert not app.users().is_running
    assert not app.reports().is_running


def test_a_container_with_an_asyncio_pool_refuses_the_plain_start_before_anything_starts():
    app = App()
    with pytest.raises(ConfigurationError, match=r"'reports' is an asyncio pool: use astart\(\)"):
        app.start()
    assert app.users.built is None
    assert not app.is_running


async def test_a_container_whose_asyncio_pool_was_used_refuses_the_plain_stop():
    async with App().running() as app:
        with pytest.raises(ConfigurationError, match=r"use astop\(\)"):
            app.stop()
        assert app.is_running


async def test_asynchronous_services_start_and_stop_in_order(log):
    class Mixed(di.Container):
        store = di.Managed(AsyncPart, "store", log_provider)
        cache = di.Managed(Part, "cache", log_provider, store)

    async with Mixed().running():
        pass
    assert log == ["start store", "start cache", "stop cache", "stop store"]


async def test_a_failed_async_start_rolls_back(log):
    class Broken(AsyncPart):
        async def start(self):
            raise OSError("no route")

    class Failing(di.Container):
        store = di.Managed(AsyncPart, "store", log_provider)
        broken = di.Managed(Broken, "broken", log_provider, store)

    with pytest.raises(OSError, match="no route"):
        await Failing().astart()
    assert log == ["start store", "stop broken", "stop store"]


async def test_a_cancelled_start_rolls_back(log):
    inside = asyncio.Event()

    class Hanging(AsyncPart):
        async def start(self):
            inside.set()
            await asyncio.Event().wait()

    class Slow(di.Container):
        store = di.Managed(AsyncPart, "store", log_provider)
        hanging = di.Managed(Hanging, "hanging", log_provider, store)

    app = Slow()
    starting = asyncio.create_task(app.astart())
    await inside.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert log == ["start store", "stop hanging", "stop store"]
    assert not app.is_running


async def test_a_cancelled_stop_still_stops_the_rest(log):
    inside = asyncio.Event()

    class Hanging(AsyncPart):
        async def stop(self):
            inside.set()
            await asyncio.Event().wait()

    class Slow(di.Container):
        store = di.Managed(AsyncPart, "store", log_provider)
        hanging = di.Managed(Hanging, "hanging", log_provider, store)

    app = Slow()
    await app.astart()
    stopping = asyncio.create_task(app.astop())
    await inside.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert log[-1] == "stop store"


def test_an_async_service_refuses_the_plain_start(log):
    class Mixed(di.Container):
        store = di.Managed(AsyncPart, "store", log_provider)

    with pytest.raises(ConfigurationError, match=r"must be awaited; use astart\(\)"):
        Mixed().start()


def test_resources_of_the_library_start_and_stop_in_the_same_order(log):
    def resource(name, *needs):
        LOG.append(f"start {name}")
        yield name
        LOG.append(f"stop {name}")

    class Mixed(di.Container):
        settings = providers.Resource(resource, "settings")
        store = di.Managed(Part, "store", log_provider, settings)
        cache = providers.Resource(resource, "cache", store)

    with Mixed().running():
        pass
    assert log == ["start settings", "start store", "start cache", "stop cache", "stop store", "stop settings"]


async def test_asynchronous_resources_of_the_library_start_and_stop(log):
    async def resource(name):
        LOG.append(f"start {name}")
        yield name
        LOG.append(f"stop {name}")

    class Mixed(di.Container):
        settings = providers.Resource(resource, "settings")

    async with Mixed().running():
        pass
    assert log == ["start settings", "stop settings"]


def test_running_and_request_stand_in_one_with():
    app = Threaded()
    with app.running(), app.request(user="ann") as ctx:
        assert ctx["user"] == "ann"
        assert app.users().is_running
        app.user()
    assert not app.users().is_running


async def test_running_and_request_stand_in_one_async_with():
    app = App()
    async with app.running(), app.request(user="ann") as ctx:
        assert ctx.container is app
        await app.report.aget()
    assert not app.reports().is_running


def test_the_timeout_of_stop_reaches_the_pools(caplog):
    app = Threaded()
    app.start()
    value = app.users().acquire()
    app.stop(timeout=0)
    assert not app.users().is_running
    app.users().release(value)


@pytest.mark.parametrize("name", ["check", "request", "stop", "running", "get"])
def test_a_provider_that_would_hide_a_method_of_the_container_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"Hiding.{name}: .*would hide '{name}'"):
        type("Hiding", (di.Container,), {name: providers.Object(1)})
    app = type("App", (di.Container,), {})()
    with pytest.raises(ConfigurationError, match=f"App.{name}: "):
        app.bind(name, 1)
    app.bind(f"services.{name}", 1)


def test_a_copied_container_takes_from_the_pool_that_replaces_the_other():
    class Base(di.Container):
        users = di.Pool(User, max_size=2)
        user = di.Pooled(users)

    @containers.copy(Base)
    class Copied(Base):
        users = di.Pool(User, max_size=5)

    @di.inject
    def value(user: User = di.Inject[Copied.user]):
        return user

    app = Copied()
    with app.running(), app.request():
        assert value() is app.user()
        assert (app.users().borrowed, app.users().options.max_size) == (1, 5)
