"""Bindings under keys, members from bindings, and tasks."""

from __future__ import annotations

import asyncio

import pytest
from dependency_injector import providers

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    PoolFactory,
    PoolingService,
    RequestContext,
    create_pooled_binding_factory,
    di,
)
from tests.di.parts import App, Recording, Repo, Threaded, User

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


# --- members from bindings -------------------------------------------------------------------------------------------


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


# --- checks ----------------------------------------------------------------------------------------------------------


def starts_with_finding(kind, match):
    with pytest.raises(ConfigurationError, match=match):
        kind().start()
    with pytest.raises(ConfigurationError, match=match):
        kind().check()


@pytest.mark.parametrize("single", [providers.Singleton, providers.ThreadLocalSingleton, providers.Resource])
def test_what_outlives_a_request_may_not_hold_a_pooled_value(single):
    class Captive(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        repo = providers.Factory(Repo, user=user)
        cache = single(Repo, repo)

    starts_with_finding(Captive, rf"cache \({single.__name__}\) -> repo \(Factory\) -> user \(Pooled\)")


def test_a_managed_service_and_members_of_a_pool_may_not_hold_one_either():
    class Captive(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        worker = di.Managed(Repo, user)
        pool = di.Pool(providers.Factory(Repo, user))

    starts_with_finding(Captive, r"worker \(Managed\) -> .*user \(Pooled\)(.|\n)*pool \(Pool\)")


def test_a_singleton_that_has_the_slots_provider_is_fine():
    class Fine(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        repo = providers.Singleton(Repo, user.provider)

    app = Fine()
    with app.running(), app.request():
        assert app.repo().user() is app.user()


def test_a_captive_value_that_a_test_overrides_is_fine():
    class Captive(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        cache = providers.Singleton(Repo, user)

    app = Captive()
    with app.user.override(User()):
        app.check()


def test_members_that_are_a_singleton_are_found_at_start():
    class Single(di.Container):
        member = providers.Singleton(User)
        pool = di.Pool(member)

    starts_with_finding(Single, "members of pool 'pool' is a Singleton")


def test_members_overridden_by_a_singleton_are_found_at_start():
    class Members(di.Container):
        member = providers.Factory(User)
        pool = di.Pool(member)

    app = Members()
    app.member.override(User())
    with pytest.raises(ConfigurationError, match="gives the same object every time"):
        app.check()


def test_a_member_key_that_leads_nowhere_is_found_at_start():
    class Nowhere(di.Container):
        pool = di.Pool(create_pooled_binding_factory("members.nobody"))

    starts_with_finding(Nowhere, "nothing under the key 'members.nobody'")


def test_a_dependency_that_was_not_provided_is_found_at_start():
    class Open(di.Container):
        url = providers.Dependency(instance_of=str)

    starts_with_finding(Open, r"undefined dependencies: .*Open\.url")


def test_a_marker_that_leads_nowhere_is_found_at_start():
    class Marked(di.Container):
        name = providers.Object("x")

    @di.inject
    def by_key(value=di.Inject[Marked, "nowhere"]):
        pass

    starts_with_finding(Marked, r"by_key: nothing is bound under the key 'nowhere' that value asks for")


def test_functions_and_modules_can_be_checked_too():
    @di.inject
    def by_key(value=di.Inject["services.nowhere"]):
        pass

    app = Threaded()
    app.check()
    with pytest.raises(ConfigurationError, match=r"nothing is bound under the key 'services\.nowhere'"):
        app.check(by_key)
    app.bind("services.nowhere", 1)
    app.check(by_key)


def test_what_is_checked_twice_is_found_once():
    class Own(di.Container):
        pass

    @di.inject
    def function(value=di.Inject[Own, "no.such.key"]):
        pass

    with pytest.raises(ConfigurationError) as caught:
        Own().check(function)
    assert str(caught.value).count("no.such.key") == 1


def test_all_findings_come_at_once():
    class Wrong(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        cache = providers.Singleton(Repo, user)
        member = providers.Singleton(User)
        pool = di.Pool(member)

    with pytest.raises(ConfigurationError) as caught:
        Wrong().start()
    assert str(caught.value).count("\n- ") == 2


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_is_a_request_of_its_own():
    @di.task
    @di.inject
    def job(number, repo: Repo = di.Inject[Threaded.repo]):
        assert RequestContext.current().name.endswith("job")
        return number, repo.user

    app = Threaded()
    with app.running():
        assert job(1)[1] is job(2)[1]
        assert app.users().borrowed == 0
        assert app.users().stats().acquired == 2


async def test_an_async_task_is_a_request_of_its_own():
    @di.task(App, name="nightly", user="cron")
    @di.inject
    async def job(repo: Repo = di.Inject[App.areport]):
        ctx = RequestContext.current()
        return ctx.name, ctx["user"], repo.user

    async with App().running() as app:
        name, user, value = await job()
        assert (name, user) == ("nightly", "cron")
        assert isinstance(value, User)
        assert app.reports().borrowed == 0


def test_a_failing_task_tells_the_release_hook():
    factory = Recording()

    class Jobs(di.Container):
        users = di.Pool(factory)
        user = di.Pooled(users)

    app = Jobs()
    problem = ValueError("in the job")

    @di.task(app)
    def job():
        app.user()
        raise problem

    with app.running(), pytest.raises(ValueError, match="in the job"):
        job()
    assert factory.ends == [problem]


def test_a_generator_function_is_no_task():
    def rows():
        yield 1

    async def arows():
        yield 1

    for function in (rows, arows):
        with pytest.raises(ConfigurationError, match=f"{function.__name__} is a generator function"):
            di.task(function)


def test_tasks_may_be_methods_of_a_class():
    class Jobs:
        @di.task(Threaded)
        @classmethod
        def of_class(cls):
            return cls, RequestContext.current()

        @di.task(Threaded)
        @staticmethod
        def static():
            return RequestContext.current()

    with Threaded().running() as app:
        kind, ctx = Jobs.of_class()
        assert kind is Jobs
        assert ctx.container is Jobs.static().container is app


def test_a_task_without_a_running_container_says_so():
    @di.task
    def job():
        raise AssertionError

    @di.task(Threaded)
    def other():
        raise AssertionError

    with pytest.raises(ConfigurationError, match="no container is running"):
        job()
    with pytest.raises(ConfigurationError, match="no container Threaded is running"):
        other()
    with Threaded().running(), Threaded().running():
        with pytest.raises(ConfigurationError, match="2 containers are running; say which"):
            job()
