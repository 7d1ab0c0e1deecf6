"""`Pool` and `AsyncPool`: where members and options come from."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect

import pytest
from dependency_injector import providers

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    PoolFactory,
    PoolingService,
    PoolingServiceOptions,
    create_pooled_binding_factory,
    di,
)
from pooling.di._sources import PoolDeclaration
from tests.di.parts import Recording, Threaded, User

AUDIT = "services.pooling.audit"


class Member:
    """A member with a dependency and a life."""

    def __init__(self, log, name="member"):
        self.log, self.name = log, name

    def start(self):
        self.log.append("start")

    def stop(self):
        self.log.append("stop")


def test_members_come_from_a_provider_and_are_started_and_stopped():
    log = []

    class Bound(di.Container):
        log = providers.Object([])
        member = providers.Factory(Member, log, name="bound")
        pool = di.Pool(create_pooled_binding_factory(member), max_size=2)
        plain = di.Pool(member)

    for name in ("pool", "plain"):
        app = Bound()
        log = app.log()
        log.clear()
        with app.running():
            pool = app.get(name)
            one, two = pool.acquire(), pool.acquire()
            assert one is not two
            assert one.name == "bound"
            pool.release(one)
            pool.release(two)
            assert log == ["start", "start"]
        assert log == ["start", "start", "stop", "stop"]


def test_members_come_from_a_key_of_the_pools_container():
    app = Threaded()
    app.bind("members.audit", providers.Factory(Member, [], name="audit"))
    app.bind(AUDIT, di.Pool(create_pooled_binding_factory("members.audit")))
    app.bind("audit", di.Pooled(app.find(AUDIT)))
    with app.running(), app.request():
        assert app.get("audit").name == "audit"


def test_a_key_can_be_used_without_a_pool_provider_when_the_container_is_given():
    app = Threaded()
    app.bind("member", providers.Factory(User))
    with PoolingService(create_pooled_binding_factory("member", container=app)) as pool, pool.lease() as value:
        assert isinstance(value, User)


def test_a_key_without_a_container_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="no container to look for this key"):
        create_pooled_binding_factory("member").create()


async def test_members_can_be_made_by_a_coroutine_function():
    async def connect():
        await asyncio.sleep(0)
        return User()

    async with AsyncPoolingService(create_pooled_binding_factory(providers.Callable(connect))) as pool:
        async with pool.lease() as value:
            assert isinstance(value, User)


@pytest.mark.parametrize(
    "single", [providers.Singleton(User), providers.ThreadSafeSingleton(User), providers.Object(User())]
)
def test_members_that_are_a_singleton_are_refused(single):
    with pytest.raises(ConfigurationError, match="gives the same object every time"):
        create_pooled_binding_factory(single)


def test_what_is_no_binding_is_refused():
    with pytest.raises(ConfigurationError, match="expected a provider"):
        create_pooled_binding_factory(User)


def test_a_provider_of_a_factory_gives_the_factory_with_its_dependencies():
    class Configured(Recording):
        def __init__(self, size):
            super().__init__()
            self.size = size

    class Container(di.Container):
        size = providers.Object(3)
        pool = di.Pool(providers.Factory(Configured, size))

    assert Container().pool().factory.size == 3


# --- options ---------------------------------------------------------------------------------------------------------


def test_pools_get_their_options_from_the_configuration():
    class Configured(di.Container):
        config = providers.Configuration(default={"pool": {"max_size": 3}})
        users = di.Pool(User, max_size=config.pool.max_size, name="people")
        reports = di.AsyncPool(User, {"max_size": 2})

    app = Configured()
    assert app.users().options.max_size == 3
    assert app.users().name == "people"
    assert app.reports().name == "reports"
    assert app.reports().options.max_size == 2
    assert isinstance(app.users(), PoolingService)
    assert isinstance(app.reports(), AsyncPoolingService)


def test_one_factory_under_several_keys_makes_separate_pools():
    factory = PoolFactory.of(User)

    class Two(di.Container):
        first = di.Pool(factory)
        second = di.Pool(factory)

    app = Two()
    with app.running(), app.first().lease() as first, app.second().lease() as second:
        assert app.first().factory is app.second().factory is factory
        assert first is not second


@pytest.mark.parametrize("service", [PoolingService, AsyncPoolingService])
def test_the_options_that_type_checkers_know_are_those_of_the_pool(service):
    own = set(inspect.signature(service).parameters) - {"factory", "options", "options_as_keywords"}
    options = {field.name for field in dataclasses.fields(PoolingServiceOptions)}
    assert set(PoolDeclaration.__annotations__) == options | own | {"group"}
