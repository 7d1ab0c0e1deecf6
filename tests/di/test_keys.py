"""Bindings under keys: `bind`, `configure`, `find`, `get`."""

from __future__ import annotations

import pytest
from dependency_injector import providers

from pooling import (
    ConfigurationError,
    PoolFactory,
    PoolingService,
    di,
)
from tests.di.parts import App, Threaded, User

AUDIT = "services.pooling.audit"


def test_a_pool_is_bound_configured_and_got_by_a_key_with_dots():
    app = Threaded()
    app.bind(AUDIT, di.Pool(User))
    app.configure(AUDIT, max_size=2)
    app.configure(AUDIT, {"timeout": 7.0})
    pool = app.get(AUDIT)
    assert pool is app.get(AUDIT)
    assert isinstance(pool, PoolingService)
    assert (pool.name, pool.options.max_size, pool.options.timeout) == (AUDIT, 2, 7.0)
    with app.running():
        assert pool.is_running
    assert not pool.is_running


def test_one_factory_under_several_keys_gives_separate_pools():
    app, factory = Threaded(), PoolFactory.of(User)
    for key in ("services.a", "services.b"):
        app.bind(key, di.Pool(factory))
        app.bind(f"{key}.value", di.Pooled(app.find(key)))
    app.configure("services.a", max_size=1)
    with app.running(), app.request():
        assert app.get("services.a.value") is not app.get("services.b.value")
        assert app.get("services.b").options.max_size != 1


def test_a_pool_that_exists_cannot_be_configured():
    app = Threaded()
    app.get("users")
    with pytest.raises(ConfigurationError, match="'users' exists already"):
        app.configure("users", max_size=2)


def test_what_is_no_pool_cannot_be_configured():
    with pytest.raises(ConfigurationError, match="a Factory is no pool"):
        Threaded().configure("repo", max_size=2)


def test_a_declared_member_and_a_nested_one_have_keys_too():
    class Outer(di.Container):
        config = providers.Configuration(default={"a": {"b": 1}})
        inner = providers.Container(Threaded)

    app = Outer()
    assert app.get("inner.users") is app.inner.users()
    assert app.get("config.a.b") == 1
    assert app.find("inner.nothing", None) is None


def test_an_unknown_key_is_named_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"Threaded has nothing under the key 'nothing'; it has repo, .*users"):
        Threaded().get("nothing")


def test_a_misspelt_attribute_is_told_with_the_containers_class():
    with pytest.raises(AttributeError, match="'Threaded' object has no attribute 'reppo'"):
        _ = Threaded().reppo


def test_a_container_class_may_have_an_instance_type_of_its_own():
    class Named(di.Container.instance_type):
        def title(self):
            return "own"

    class Own(Threaded):
        instance_type = Named

    assert Own().title() == "own"


@pytest.mark.parametrize("key", ["", "a..b", ".a", 3])
def test_a_malformed_key_is_refused(key):
    with pytest.raises(ConfigurationError, match="expected a key"):
        Threaded().bind(key, 1)


def test_a_bound_value_that_is_no_provider_is_given_as_it_is():
    app, value = Threaded(), object()
    app.bind("limits.upload", value)
    assert app.get("limits.upload") is value


def test_a_key_can_be_overridden():
    app = Threaded()
    app.bind(AUDIT, di.Pool(User))
    with app.override_providers(**{AUDIT: providers.Object("fake")}):
        assert app.get(AUDIT) == "fake"
    assert isinstance(app.get(AUDIT), PoolingService)


async def test_aget_awaits_what_the_provider_needs():
    async with App().running() as app, app.request():
        assert (await app.aget("aservice")).repo.user is app.report()
