"""`inject`: functions of every kind, markers of both kinds, and which container answers."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import weakref
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Optional

import pytest
from dependency_injector import providers

from pooling import (
    ConfigurationError,
    PoolFactory,
    PoolingService,
    PoolTimeoutError,
    RequestContext,
    RequestContextError,
    di,
)
from pooling.di._plan import Plan
from tests.di.parts import App, Repo, Service, Threaded, User


@di.inject
def plain(number, service: Service = di.Inject[Threaded.service]):
    return number, service


@di.inject
async def awaited(number, service: Service = di.Inject[App.aservice]):
    await asyncio.sleep(0)
    return number, service


@di.inject
def annotated(number, repo: Annotated[Repo, di.Inject(Threaded.repo)]):
    return number, repo


@pytest.fixture
def threaded():
    app = Threaded()
    with app.running():
        yield app


@pytest.fixture
async def app():
    async with App().running() as app:
        yield app


def test_a_function_gets_its_marked_argument(threaded):
    with threaded.request():
        number, service = plain(1)
        assert number == 1
        assert service.repo.user is threaded.user()


async def test_an_async_function_has_what_it_needs_awaited_first(app):
    async with app.request():
        number, service = await awaited(2)
        assert number == 2
        assert service.repo.user is service.other.user is app.report()
        assert app.reports().borrowed == 1
    assert app.reports().borrowed == 0


async def test_two_calls_of_one_request_at_once_share_a_value_acquired_once(app):
    async with app.request():
        calls = await asyncio.gather(*(awaited(n) for n in range(4)))
        assert len({service.repo.user for _, service in calls}) == 1
    assert app.reports().stats().acquired == 1


async def test_a_call_cancelled_while_it_waits_leaves_the_other_its_value(app):
    pool = app.reports()
    out = [await pool.acquire() for _ in range(4)]
    async with app.request():
        first, second = (asyncio.create_task(awaited(n)) for n in range(2))
        while not pool.pending:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        await pool.release(out.pop())
        await second
        assert first.cancelled()
    for value in out:
        await pool.release(value)
    assert pool.borrowed == 0


async def test_a_dependency_that_raises_cancelled_error_ends_the_call_instead_of_hanging():
    class Cancelling(PoolFactory):
        def create(self):
            return User()

        async def acquire(self, value, request_ctx):
            raise asyncio.CancelledError

    class Hanging(di.Container):
        pool = di.AsyncPool(Cancelling())
        value = di.Pooled(pool)
        repo = providers.Factory(Repo, user=value)

    @di.inject
    async def call(repo: Repo = di.Inject[Hanging.repo]):
        raise AssertionError

    async with Hanging().running() as app, app.request():
        task = asyncio.create_task(call())
        await asyncio.wait([task], timeout=20)
        assert task.cancelled()


def test_annotated_markers_work_with_postponed_annotations(threaded):
    with threaded.request():
        assert annotated(3)[1].user is threaded.user()
        assert annotated(number=3)[0] == 3


def test_annotated_markers_work_with_names_of_an_enclosing_function(threaded):
    local = di.Inject(Threaded.repo)

    @di.inject
    def function(repo: Annotated[Repo, local]):
        return repo

    with threaded.request():
        assert isinstance(function(), Repo)


def test_an_alias_of_an_annotated_type_works(threaded):
    Wanted = Annotated[Repo, di.Inject(Threaded.repo)]

    @di.inject
    def function(repo: Wanted):
        return repo

    with threaded.request():
        assert isinstance(function(), Repo)


def test_an_annotation_that_cannot_be_evaluated_is_an_error_at_decoration():
    def function(repo: Annotated[Repo, di.Inject(Nowhere.repo)]):  # noqa: F821
        pass

    with pytest.raises(ConfigurationError, match=r"function: the annotation .* of repo cannot be evaluated .*Nowhere"):
        di.inject(function)


def test_a_marker_inside_an_optional_annotation_is_found(threaded):
    @di.inject
    def function(
        repo: Annotated[Repo, di.Inject(Threaded.repo)] | None = None,
        other: Optional[Annotated[Repo, di.Inject(Threaded.repo)]] = None,  # noqa: UP045 - as it is written too
    ):
        return repo, other

    with threaded.request():
        assert [type(part) for part in function()] == [Repo, Repo]
        assert function(repo=None)[0] is None


@pytest.mark.parametrize("thing", [functools.partial(print), Repo(None), Repo])
def test_what_is_no_function_is_refused(thing):
    with pytest.raises(ConfigurationError, match="expected a function or method"):
        di.inject(thing)


def test_nothing_to_inject_is_an_error_at_decoration():
    with pytest.raises(ConfigurationError, match="nothing is marked for injection"):

        @di.inject
        def function(repo: Repo = None):
            pass


def test_a_marker_for_something_that_is_no_provider_is_an_error_at_once():
    with pytest.raises(ConfigurationError, match="expected a provider"):
        di.Inject[Repo]


def test_a_positional_only_argument_cannot_be_injected():
    def function(repo=di.Inject[Threaded.repo], /):
        pass

    with pytest.raises(ConfigurationError, match="cannot be passed by name"):
        di.inject(function)


@pytest.mark.parametrize("call", [lambda mine: plain(1, mine), lambda mine: plain(1, service=mine)])
def test_an_explicit_argument_acquires_nothing(threaded, call):
    mine = object()
    with threaded.request():
        assert call(mine) == (1, mine)
        assert threaded.users().stats().acquired == 0
    assert call(mine) == (1, mine)  # and needs no request


async def test_an_explicit_argument_of_an_async_function_acquires_nothing(app):
    mine = object()
    async with app.request():
        assert await awaited(1, mine) == (1, mine)
        assert await awaited(1, service=mine) == (1, mine)
        assert app.reports().stats().acquired == 0
    assert await awaited(1, mine) == (1, mine)


def test_methods_constructors_static_and_class_methods_are_injected(threaded):
    class Handler:
        @di.inject
        def __init__(self, repo: Repo = di.Inject[Threaded.repo]):
            self.repo = repo

        @di.inject
        def method(self, x, repo: Repo = di.Inject[Threaded.repo]):
            return self, x, repo.user

        @di.inject
        @staticmethod
        def static(repo: Repo = di.Inject[Threaded.repo]):
            return repo.user

        @classmethod
        @di.inject
        def of_class(cls, repo: Repo = di.Inject[Threaded.repo]):
            return cls, repo.user

        @di.inject
        @classmethod
        def of_class_too(cls, repo: Repo = di.Inject[Threaded.repo]):
            return cls, repo.user

    with threaded.request():
        user = threaded.user()
        handler = Handler()
        assert handler.repo.user is user
        assert handler.method(1) == (handler, 1, user)
        assert Handler.static() is user
        assert Handler.of_class() == Handler.of_class_too() == (Handler, user)


def test_a_generator_is_injected_when_it_starts_and_talks_to_its_caller(threaded):
    @di.inject
    def generator(start, repo: Repo = di.Inject[Threaded.repo]):
        try:
            got = yield start
        except ValueError as error:
            got = error
        yield got
        return repo

    with threaded.request():
        running = generator(1)
        assert threaded.users().borrowed == 0
        assert next(running) == 1
        assert threaded.users().borrowed == 1
        assert running.send("x") == "x"
        with pytest.raises(StopIteration) as stopped:
            next(running)
        assert stopped.value.value.user is threaded.user()
        running = generator(1)
        next(running)
        error = ValueError()
        assert running.throw(error) is error


async def test_an_async_generator_is_injected_when_it_starts_and_talks_to_its_caller(app):
    log = []

    @di.inject
    async def generator(start, repo: Repo = di.Inject[App.areport]):
        try:
            try:
                got = yield start
            except ValueError as error:
                got = error
            yield got
            yield repo
        finally:
            log.append("closed")

    async with app.request():
        running = generator(1)
        assert app.reports().borrowed == 0
        assert await anext(running) == 1
        assert await running.asend("x") == "x"
        assert (await anext(running)).user is app.report()
        with pytest.raises(StopAsyncIteration):
            await anext(running)
        running = generator(1)
        await anext(running)
        error = ValueError()
        assert await running.athrow(error) is error
        await running.aclose()
        assert log == ["closed", "closed"]


def test_the_kinds_of_functions_stay_what_they_are():
    assert inspect.iscoroutinefunction(awaited)
    assert not inspect.iscoroutinefunction(plain)
    assert plain.__name__ == "plain"


def test_the_signature_shows_only_what_a_caller_gives():
    assert str(inspect.signature(plain)) == "(number)"
    assert str(inspect.signature(annotated)) == "(number)"
    assert "repo" not in annotated.__annotations__

    @di.inject
    def gap(a, repo: Annotated[Repo, di.Inject(Threaded.repo)], b: int, *rest, c=1):
        pass

    assert str(inspect.signature(gap)) == "(a, *rest, b: 'int', c=1)"


# --- which container answers -----------------------------------------------------------------------------------------


def test_the_container_of_the_request_answers():
    first, second = Threaded(), Threaded()
    with first.running(), second.running():
        with first.request():
            assert plain(1)[1].repo.user is first.user()
        with second.request():
            assert plain(1)[1].repo.user is second.user()


def test_the_container_of_the_request_need_not_be_started():
    app = Threaded()
    with app.request():
        assert plain(1)[1].repo.user is app.user()
    app.stop()


def test_the_one_running_container_answers_in_a_request_without_any(threaded):
    with RequestContext():
        assert plain(1)[1].repo.user is threaded.user()


def test_two_running_containers_and_a_request_of_neither_is_an_error():
    with Threaded().running(), Threaded().running(), RequestContext():
        with pytest.raises(ConfigurationError, match=r"2 running containers have Threaded\.service"):
            plain(1)


def test_no_container_at_all_is_an_error_that_names_function_and_provider():
    with pytest.raises(
        ConfigurationError, match=r"test_inject\.plain\(service\): no container that has Threaded\.service"
    ):
        plain(1)


def test_a_function_can_have_arguments_from_two_containers(threaded):
    class Other(di.Container):
        things = di.Pool(User)
        thing = di.Pooled(things)

    @di.inject
    def both(repo: Repo = di.Inject[Threaded.repo], thing: User = di.Inject[Other.thing]):
        return repo.user, thing

    with Other().running() as other, threaded.request():
        for _ in range(2):
            assert both() == (threaded.user(), other.thing())


def test_a_subclass_answers_for_its_parents_providers():
    class Special(Threaded):
        repo = providers.Factory(Repo, user="special")

    app = Special()
    with app.running(), app.request():
        assert annotated(1)[1].user == "special"
        assert plain(1)[1].repo.user is app.user()  # declared in the parent around the parent's repo


def test_a_provider_of_an_instance_means_that_instance():
    first, second = Threaded(), Threaded()

    @di.inject
    def function(repo: Repo = di.Inject[first.repo]):
        return repo

    with second.running(), second.request():
        user = function().user
        assert first.users().borrowed == 1
        assert user is first.user()
    first.stop()


def test_providers_of_a_nested_container_can_be_named():
    class Outer(di.Container):
        inner = providers.Container(Threaded)

    @di.inject
    def function(repo: Repo = di.Inject[Outer.inner.repo]):
        return repo

    app = Outer()
    with app.running(), app.request():
        assert function().user is app.inner.user()


def test_what_is_derived_from_a_provider_can_be_injected():
    class Derived(di.Container):
        config = providers.Configuration()
        users = di.Pool(User)
        user = di.Pooled(users)
        repo = providers.Factory(Repo, user=user)

    @di.inject
    def function(
        user=di.Inject[Derived.repo.provided.user],
        size=di.Inject[Derived.config.pool.size],
        factory=di.Inject[Derived.repo.provider],
    ):
        return user, size, factory

    app = Derived()
    app.config.from_dict({"pool": {"size": 3}})
    with app.running(), app.request():
        user, size, factory = function()
        assert user is app.user()
        assert size == 3
        assert factory is app.repo


def test_a_key_finds_what_is_bound_under_it(threaded):
    threaded.bind("services.pooling.audit", di.Pool(User, max_size=1))

    @di.inject
    def function(pool=di.Inject["services.pooling.audit"]):
        return pool

    with threaded.request():
        assert function() is threaded.get("services.pooling.audit")
        assert isinstance(function(), PoolingService)


def test_a_key_can_name_its_container(threaded):
    class Other(di.Container):
        name = providers.Object("other")

    threaded.bind("name", "threaded")

    @di.inject
    def function(mine=di.Inject[Threaded, "name"], others=di.Inject[Other, "name"]):
        return mine, others

    with Other().running(), threaded.request():
        assert function() == ("threaded", "other")


def test_a_key_bound_anew_is_seen_by_functions_called_before(threaded):
    threaded.bind("limit", 1)

    @di.inject
    def function(limit=di.Inject["limit"]):
        return limit

    with threaded.request():
        assert function() == 1
        threaded.bind("limit", 2)
        assert function() == 2


# --- overrides and dynamic graphs ------------------------------------------------------------------------------------


async def test_an_overridden_pooled_provider_is_not_taken_from_its_pool(app):
    async with app.request():
        await awaited(1)
    before = app.reports().stats().acquired
    fake = User()
    with app.report.override(fake):
        async with app.request():
            assert (await awaited(1))[1].repo.user is fake
    with app.areport.override(providers.Factory(Repo, user="fake")):
        async with app.request():
            assert (await awaited(1))[1].repo.user == "fake"
    assert app.reports().stats().acquired == before
    async with app.request():
        assert (await awaited(1))[1].repo.user is app.report()


async def test_an_override_that_needs_another_pool_has_that_awaited(app):
    class More(di.Container):
        extra = di.AsyncPool(User)
        value = di.Pooled(extra)

    async with More().running() as more:
        with app.areport.override(providers.Factory(Repo, user=more.value)):
            async with app.request():
                assert (await awaited(1))[1].repo.user is more.value()
            assert app.reports().stats().acquired == 0


async def test_only_the_selected_branch_is_taken_from_its_pool():
    class Choice(di.Container):
        config = providers.Configuration(default={"kind": "a"})
        first = di.AsyncPool(User)
        second = di.AsyncPool(User)
        repo = providers.Selector(
            config.kind,
            a=providers.Factory(Repo, user=di.Pooled(first)),
            b=providers.Factory(Repo, user=di.Pooled(second)),
        )

    @di.inject
    async def function(repo: Repo = di.Inject[Choice.repo]):
        return repo

    async with Choice().running() as app:
        for kind, taken in (("a", (1, 0)), ("b", (1, 1))):
            app.config.kind.from_value(kind)
            async with app.request():
                await function()
            assert (app.first().stats().acquired, app.second().stats().acquired) == taken


async def test_behind_a_provider_handed_on_nothing_is_taken_until_it_is_asked_for():
    class Lazy(di.Container):
        pool = di.AsyncPool(User)
        value = di.Pooled(pool)
        repo = providers.Factory(Repo, user=value.provider)

    @di.inject
    async def function(repo: Repo = di.Inject[Lazy.repo]):
        assert app.pool().borrowed == 0
        return await repo.user.aget()

    async with Lazy().running() as app, app.request():
        assert await function() is app.value()


async def test_eager_false_leaves_the_awaiting_to_the_function(app):
    @di.inject(eager=False)
    async def function(repo: Repo = di.Inject[App.areport]):
        return repo

    async with app.request():
        with pytest.raises(RequestContextError, match="must be awaited"):
            await function()
        value = await app.report.aget()
        assert (await function()).user is value


async def test_a_threaded_pool_in_an_async_function_is_awaited_off_the_loop(app):
    @di.inject
    async def function(repo: Repo = di.Inject[App.repo]):
        return repo

    async with app.request():
        assert (await function()).user is app.user()
        assert app.users().borrowed == 1
    assert app.users().borrowed == 0


async def test_a_timeout_names_the_requests_that_hold_resources():
    class Small(di.Container):
        users = di.AsyncPool(User, max_size=1, timeout=0.01)
        plain_users = di.Pool(User, max_size=1, timeout=0.01)
        user = di.Pooled(users)
        plain = di.Pooled(plain_users)

    @di.inject
    async def takes(user: User = di.Inject[Small.user], plain: User = di.Inject[Small.plain]):
        pass

    async with Small().running() as app:
        for _ in range(2):  # the first timeout makes the pool record every borrower
            async with app.request("GET /slow"):
                await takes()
                with pytest.raises(PoolTimeoutError) as in_loop:
                    await app.users().acquire()
                with pytest.raises(PoolTimeoutError) as in_thread:
                    app.plain_users().acquire()
    for caught in (in_loop, in_thread):
        assert "for request 'GET /slow'." in str(caught.value)


async def test_providers_stay_synchronous(app):
    async with app.request():
        await awaited(1)
        assert not app.aservice.is_async_mode_enabled()
        assert not app.report.is_async_mode_enabled()


async def test_a_provider_that_is_asynchronous_by_nature_is_awaited():
    async def connect():
        return "client"

    class Mixed(di.Container):
        client = providers.Resource(connect)
        users = di.AsyncPool(User)
        repo = providers.Factory(Repo, user=client)

    @di.inject
    async def function(repo: Repo = di.Inject[Mixed.repo]):
        return repo

    async with Mixed().running() as app, app.request():
        assert (await function()).user == "client"


def test_a_function_that_is_gone_leaves_nothing_in_the_container(threaded):
    def make():
        @di.inject
        def function(repo: Repo = di.Inject[Threaded.repo]):
            return repo

        return function

    function = make()
    with threaded.request():
        function()
    assert [key for key in threaded.injection_plans if isinstance(key, int)] != []
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None
    assert [key for key in threaded.injection_plans if isinstance(key, int)] == []


def test_a_container_that_is_gone_is_not_kept_by_functions():
    app = Threaded()
    with app.running(), app.request():
        plain(1)
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_the_marker_itself_says_that_the_decorator_is_missing():
    def undecorated(repo: Repo = di.Inject[Threaded.repo]):
        return repo.user

    with pytest.raises(AttributeError, match=r"decorate the function with @pooling\.di\.inject"):
        undecorated()


# --- what is looked at once ------------------------------------------------------------------------------------------


def test_a_graph_is_looked_at_once_also_outside_the_requests_of_its_container(threaded, monkeypatch):
    looks = []
    monkeypatch.setattr(Plan, "_look", lambda self, look=Plan._look: (looks.append(self), look(self)))

    class Outer(di.Container):
        inner = providers.Container(Threaded)

    outer = Outer()

    @di.inject
    def function(repo: Repo = di.Inject[Threaded.repo]):
        return repo

    with threaded.running():
        for _ in range(3):
            with RequestContext():
                function()
            with outer.request():
                function()
                outer.get("inner.repo")
    assert len(looks) == 2


async def test_coroutines_that_providers_give_are_awaited():
    async def late():
        return "late"

    class Late(di.Container):
        coroutine = providers.Coroutine(late)
        factory = di.Factory(late)
        repo = di.Factory(Repo, "plain")

    @di.inject
    async def function(one=di.Inject[Late.coroutine], two=di.Inject[Late.factory], repo=di.Inject[Late.repo]):
        return one, two, repo

    app = Late()
    async with app.running(), app.request():
        assert (await function())[:2] == ("late", "late")
        assert await app.aget("coroutine") == await app.factory.aget() == "late"
        assert await di.Inject[Late.coroutine]() == "late"
        with app.repo.override(providers.Coroutine(late)):
            assert (await function())[2] == "late"


async def test_an_override_that_comes_while_a_call_waits_is_seen():
    class Small(di.Container):
        users = di.AsyncPool(User, max_size=1)
        user = di.Pooled(users)
        repo = di.Factory(Repo, user)

    @di.inject
    async def function(repo: Repo = di.Inject[Small.repo]):
        return repo

    async def calls():
        async with app.request():
            return await function()

    async with Small().running() as app:
        held = await app.users().acquire()
        async with app.request():
            waiting = asyncio.create_task(calls())
            while not app.users().pending:
                await asyncio.sleep(0)
            with app.repo.override("fake"):
                await app.users().release(held)
                assert await waiting == "fake"


@pytest.mark.parametrize(
    "handed_on",
    [
        lambda user: providers.DelegatedFactory(Repo, user),
        lambda user: providers.FactoryAggregate(a=providers.Factory(Repo, user)),
        lambda user: providers.Container(App),
    ],
)
async def test_what_is_handed_on_as_it_is_has_nothing_taken_and_may_be_kept(handed_on):
    class Handing(di.Container):
        users = di.AsyncPool(User)
        user = di.Pooled(users)
        service = di.Factory(dict, a=handed_on(user))
        kept = providers.Singleton(dict, a=handed_on(user))

    @di.inject
    async def function(service=di.Inject[Handing.service]):
        return service

    async with Handing().running() as app, app.request():
        await function()
        assert app.users().borrowed == 0


# --- mistakes --------------------------------------------------------------------------------------------------------


async def test_a_context_manager_made_of_an_async_generator_is_injected_when_it_is_entered():
    @di.inject
    @asynccontextmanager
    async def opened(number, repo: Repo = di.Inject[App.areport]):
        yield number, repo

    async with App().running() as app, app.request():
        async with opened(1) as (number, repo):
            assert (number, repo.user) == (1, await app.report.aget())
        mine = Repo(None)
        async with opened(2, mine) as given:
            assert given == (2, mine)


def test_a_context_manager_made_of_a_generator_is_injected_as_well():
    @di.inject
    @contextmanager
    def opened(repo: Repo = di.Inject[Threaded.repo]):
        yield repo

    with Threaded().running() as app, app.request():
        with opened() as repo:
            assert repo.user is app.user()


def test_a_marker_that_nothing_injects_says_so_and_can_be_copied():
    marker = di.Inject[Threaded.repo]
    assert copy.deepcopy(marker) is marker
    assert copy.copy(marker) == marker
    with pytest.raises(AttributeError, match=r"the marker itself.*@pooling\.di\.inject"):
        _ = marker.user


def test_a_class_that_was_defined_again_is_told_from_one_that_is_not_running():
    def run():
        class Rerun(di.Container):
            users = di.Pool(User)
            user = di.Pooled(users)

        @di.inject
        def page(user: User = di.Inject[Rerun.user]):
            return user

        return Rerun(), page

    (first, _), (_, page) = run(), run()
    with first.running(), first.request(), pytest.raises(ConfigurationError, match=r"defined again.*Streamlit"):
        page()


def test_a_part_of_a_request_has_its_own_value_for_each_call():
    @di.part
    @di.inject
    def step(number, user: User = di.Inject[Threaded.user]):
        return number, user, RequestContext.current()["tenant"]

    app = Threaded()
    with app.running(), app.request(tenant="acme"):
        mine = app.user()
        number, value, tenant = step(1)
        assert (number, tenant) == (1, "acme")
        assert value is not mine
        assert app.users().borrowed == 1
    with pytest.raises(RequestContextError, match="step is a part of a request, and no request is open"):
        step(1)


async def test_an_async_part_and_a_method_can_be_one():
    class Chat:
        @di.part
        @di.inject
        async def read(self, user: User = di.Inject[App.user]):
            assert RequestContext.current().parent is not None
            return user

        @di.part
        @staticmethod
        def plain():
            return RequestContext.current().parent

    async with App().running() as app:
        async with app.request() as ctx:
            assert isinstance(await Chat().read(), User)
            assert Chat.plain() is ctx
            assert app.users().borrowed == 0


def test_a_generator_is_no_part():
    def steps():
        yield 1

    with pytest.raises(ConfigurationError, match=r"part: .*steps is a generator function"):
        di.part(steps)


def test_when_a_value_goes_back_is_part_of_a_marker():
    brief, plain = di.Inject[Threaded.user, "handler"], di.Inject[Threaded.user]
    assert brief != plain
    assert brief == di.Inject(Threaded.user, "handler")
    assert di.Inject[Threaded, "user", "handler"].release == di.Inject["user", "handler"].release == "handler"
    with pytest.raises(ConfigurationError, match="expected 'handler', 'response' or 'end'"):
        di.Inject[Threaded.user, "handlers"]
