"""Injected functions and keys make what the library's own call makes, for every kind of graph."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from abc import ABC
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

import pytest
from dependency_injector import providers

from pooling import PoolingService, RequestContext, RequestContextError, di
from pooling.di._plan import Plan
from tests.di.parts import Repo, Threaded, User


class Parts:
    """Keeps what it was made with, by name and by place."""

    def __init__(self, first=None, second=None, *rest, third=None, **more):
        self.given = (first, second, rest, third, more)


class ByName:
    def __init__(self, *, first, second="x"):
        self.given = (first, second)


class ByPlace:
    def __init__(self, first, /, second):
        self.given = (first, second)


class Abstract(ABC):  # noqa: B024 - it is the metaclass that counts
    def __init__(self, first, second):
        self.given = (first, second)


class Inherits(Abstract):
    pass


class Calls(type):
    def __call__(cls, *args, **kwargs):
        made = super().__call__()
        made.given = (args, kwargs)
        return made


class Metaclassed(metaclass=Calls):
    def __init__(self, first=None):
        pass


class News:
    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls)
        made.new = (args, kwargs)
        return made

    def __init__(self, first, second):
        self.given = (first, second, self.new)


def by_name_only(init):
    @functools.wraps(init)
    def wrapped(self, **kwargs):
        return init(self, **kwargs)

    return wrapped


class Decorated:
    @by_name_only
    def __init__(self, first, second):
        self.given = (first, second)


@dataclass
class Data:
    first: Any
    second: Any = 2

    @property
    def given(self):
        return (self.first, self.second)


class Pair(NamedTuple):
    first: Any
    second: Any

    @property
    def given(self):
        return tuple(self)


CLASSES = [Parts, ByName, Inherits, Metaclassed, News, Decorated, Data, Pair]


def plain(value):
    """What an object was made with, all the way down."""
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, Repo):
        return Repo, plain(value.user)
    return (type(value), plain(value.given)) if hasattr(value, "given") else value


def graphs():
    """Graphs by what is special about them; each is over the pooled provider and of the kind of factory it is given."""

    def of(kind, *args, **kwargs):
        return lambda user, factory: factory(
            kind,
            *(user if part is ... else part for part in args),
            **{n: user if p is ... else p for n, p in kwargs.items()},
        )

    for kind in CLASSES:
        yield kind.__name__, of(kind, first=..., second=1)
        yield f"{kind.__name__} in another order", of(kind, second=1, first=...)
    yield "by place", of(Parts, ..., 2, 3, third=4)
    for count in range(5):
        yield f"by place, {count} more", of(Parts, ..., *range(count))
    for count in range(1, 5):
        yield f"{count} by name", of(Parts, **{f"name{number}": ... for number in range(count)})
    yield "by place and by name", of(Parts, 1, second=..., third=4)
    yield "by place where it must be", of(ByPlace, ..., second=2)
    yield "names that are none of its arguments", of(Parts, zero=..., first=1)
    yield "a keyword as a name", of(Parts, **{"class": ..., "first": 1})
    yield "no name at all", of(Parts, **{"not a name": ...})
    yield "nothing", of(Parts)
    yield "a function", lambda user, factory: factory(lambda user: Repo(user), user)
    yield "a class method", lambda user, factory: factory(Made.of, user)
    yield "attributes", lambda user, factory: factory(Parts).add_attributes(given=user)
    yield "the pooled provider itself", lambda user, factory: user
    yield "an object", lambda user, factory: factory(Parts, providers.Object("given"), user)
    yield "a factory handed on", lambda user, factory: factory(Parts, factory(Repo, user).provider, 2)
    yield "a delegated factory", lambda user, factory: factory(Parts, providers.DelegatedFactory(Repo, user), 2)
    yield (
        "a configuration option",
        lambda user, factory: factory(Parts, providers.Configuration(default={"a": 1}).a, user),
    )
    yield "a callable", lambda user, factory: factory(Parts, providers.Callable(lambda user: user, user))
    yield (
        "a selector",
        lambda user, factory: factory(Parts, providers.Selector(lambda: "a", a=user, b=providers.Object(1))),
    )
    yield "a list", lambda user, factory: factory(Parts, providers.List(user, 2))
    yield "an attribute", lambda user, factory: factory(Parts, factory(Repo, user).provided.user)
    yield "the container's pool", lambda user, factory: factory(Parts, Threaded.users, user)
    yield "a resource", lambda user, factory: factory(Parts, providers.Resource(opened, 5), user)


class Made:
    def __init__(self, user):
        self.given = user

    @classmethod
    def of(cls, user):
        return cls(user)


def opened(value):
    yield value


GRAPHS = dict(graphs())


def librarys(provider):
    """What the library's own call of a provider gives."""
    is_ours = isinstance(provider, di.Factory)
    return providers.Factory.__call__(provider) if is_ours else provider()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("factory", [providers.Factory, di.Factory])
def test_what_comes_of_a_graph_is_what_the_library_makes(factory, graph):
    class App(Threaded):
        made = GRAPHS[graph](Threaded.user, factory)
        outer = factory(Parts, first=made, third=made)

    @di.inject
    def injected(made=di.Inject[App.made], outer=di.Inject[App.outer]):
        return made, outer

    app = App()
    with app.running():
        for _ in range(2):  # at the first call, and by the plan made then
            with app.request():
                expected = [plain(librarys(app.made)), plain(librarys(app.outer))]
                assert [plain(app.get("made")), plain(app.get("outer"))] == expected
                assert [plain(app.made()), plain(app.outer())] == expected
                assert list(map(plain, injected())) == expected
            with app.request():  # where nothing was taken before
                made, outer = injected()
                assert [plain(made), plain(outer)] == [plain(app.made()), plain(app.outer())]
                assert app.users().borrowed == (
                    0 if graph == "nothing" or "handed" in graph or "delegated" in graph else 1
                )


def test_a_graph_of_classes_is_called_by_its_plan_all_the_way_down():
    callers = []

    class Noted:
        def __init__(self, *parts, **more):
            callers.append(sys._getframe(1).f_code.co_filename)  # frames of the library itself are not seen

    class App(Threaded):
        single = providers.Singleton(dict)
        inner = providers.Factory(Noted, Threaded.repo, single)
        made = di.Factory(Noted, inner, inner, second=single, third=Threaded.users)

    app = App()
    with app.running(), app.request():
        app.made()
        assert callers == [inspect.getfile(Plan)] * 3


@pytest.mark.parametrize("depth", [50, 250])
def test_a_graph_may_be_deep(depth):
    with PoolingService(User) as pool, RequestContext() as ctx:
        made = di.Pooled(pool)
        for _ in range(depth):
            made = providers.Factory(Repo, made)
        value = Plan(made).resolve(ctx)
        for _ in range(depth):
            value = value.user
        assert isinstance(value, User)


def test_objects_are_made_in_the_order_in_which_the_library_makes_them():
    order: list[str] = []

    class Noted:
        def __init__(self, name, *_, **__):
            order.append(name)

    def noted(name, **parts):
        return providers.Factory(Noted, name, **parts)

    class App(Threaded):
        made = noted("root", b=noted("b", y=noted("y"), x=noted("x")), a=noted("a"))

    app = App()
    with app.running(), app.request():
        app.made()
        expected = order.copy()
        order.clear()
        app.get("made")
        assert order == expected == ["y", "x", "b", "a", "root"]


# --- what is overridden after the first call -------------------------------------------------------------------------


class CallSite(Threaded):
    single = providers.Singleton(Parts, 1)
    config = providers.Configuration(default={"name": "x"})
    constant = providers.Object("constant")
    inner = providers.Factory(Parts, Threaded.user, single, constant, third=config.name)
    outer = providers.Factory(Parts, first=inner, second=Threaded.repo)


@di.inject
def site(outer=di.Inject[CallSite.outer]):
    return outer


@di.inject
async def asite(outer=di.Inject[CallSite.outer]):
    return outer


@pytest.mark.parametrize("name", ["single", "constant", "inner", "outer", "user", "repo", "users"])
def test_an_override_of_any_part_is_seen_at_the_next_call_and_its_end_too(name):
    app = CallSite()
    fake = PoolingService(lambda: "pooled") if name == "users" else "fake"
    with app.running():
        with app.request():
            before = plain(site()), plain(app.get("outer"))
        with getattr(app, name).override(fake), app.request():
            expected = plain(app.outer())
            assert (plain(site()), plain(app.get("outer"))) == (expected, expected)
            assert ("pooled" if name == "users" else "fake") in str(expected)
        with app.request():
            assert (plain(site()), plain(app.get("outer"))) == before
    if name == "users":
        fake.stop()


@pytest.mark.parametrize("name", ["single", "constant", "inner", "user"])
async def test_a_part_overridden_by_something_asynchronous_is_awaited(name):
    async def fake():
        await asyncio.sleep(0)
        return "fake"

    app = CallSite()
    async with app.running():
        async with app.request():
            await asite()
        with getattr(app, name).override(providers.Coroutine(fake)):
            async with app.request():
                assert "fake" in str(plain(await asite()))
    # The library remembers that a provider has once been asynchronous.


def test_what_was_overridden_once_can_be_overridden_again():
    app = CallSite()
    with app.running(), app.request():
        site()
        with app.single.override("uno"):
            assert "uno" in str(plain(site()))
            with app.single.override("due"):
                assert "due" in str(plain(site()))
            assert "uno" in str(plain(site()))
        assert "uno" not in str(plain(site()))


def test_a_key_bound_anew_is_got_anew():
    app = CallSite()
    with app.running(), app.request():
        app.bind("audit.log", providers.Object("first"))
        assert app.get("audit.log") == "first"
        app.bind("audit.log", providers.Object("second"))
        assert app.get("audit.log") == "second"
        app.set_provider("constant", providers.Object("third"))
        assert app.get("constant") == "third"


def test_arguments_given_before_the_start_are_seen_after_it():
    app = CallSite()
    with app.running(), app.request():
        site()
    app.outer.add_kwargs(third="more")
    with app.running(), app.request():
        assert site().given[3] == "more"


def test_a_graph_without_a_request_says_how_to_open_one():
    app = CallSite()
    with app.running(), pytest.raises(RequestContextError, match="no request is open here"):
        app.get("outer")


def test_a_constructor_that_fails_leaves_the_request_its_value():
    class App(Threaded):
        made = providers.Factory(int, providers.Object("no number"), base=Threaded.user)

    app = App()
    with app.running():
        with app.request():
            for _ in range(2):
                with pytest.raises(TypeError):
                    app.get("made")
            assert isinstance(app.user(), User)
            assert app.users().borrowed == 1
        assert app.users().borrowed == 0


# --- a choice that needs a pooled value ------------------------------------------------------------------------------


async def test_a_selector_may_choose_by_a_pooled_value():
    class Account:
        kind = "big"

    class Choosing(di.Container):
        accounts = di.AsyncPool(Account)
        account = di.Pooled(accounts)
        users = di.AsyncPool(User)
        user = di.Pooled(users)
        kind = di.Factory(lambda account: account.kind, account)
        inner = providers.Selector(kind, big=di.Factory(Repo, user), small=providers.Object(None))
        repo = di.Factory(Repo, user=inner)

    @di.inject
    async def use(repo: Repo = di.Inject[Choosing.repo]):
        return repo

    async with Choosing().running() as app:
        for _ in range(2):
            async with app.request():
                repo = await use()
                assert repo.user.user is await app.user.aget()
                assert (app.accounts().borrowed, app.users().borrowed) == (1, 1)
        Account.kind = "small"
        async with app.request():
            assert (await use()).user is None
            assert (app.accounts().borrowed, app.users().borrowed) == (1, 0), "only what is needed is taken"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_constructor_that_a_test_replaces_gets_what_was_declared(count):
    names = ["a", "b", "c", "d"][:count]

    class Made:
        def __init__(self, a=None, b=None, c=None, d=None):
            self.given = [a, b, c, d][:count]

    class App(di.Container):
        made = di.Factory(Made, **{name: providers.Object(name) for name in names})

    def other(self, **given):
        self.given = given

    app = App()
    assert app.made().given == names
    with mock.patch.object(Made, "__init__", other):
        assert app.made().given == {name: name for name in names}
    assert app.made().given == names
