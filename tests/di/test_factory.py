"""`di.Factory` behaves like `providers.Factory`, but is faster; see also `test_plans`."""

from __future__ import annotations

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from dependency_injector import containers, providers
from dependency_injector.errors import Error

from pooling import ConfigurationError, RequestContextError, di
from tests.di.parts import App, Repo, Threaded


class Parts:
    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs

    def __eq__(self, other):
        return isinstance(other, Parts) and vars(self) == vars(other)

    __hash__ = None


class Made(Threaded):
    inner = di.Factory(Parts, 1, user=Threaded.user)
    middle = providers.Factory(Parts, inner)
    outer = di.Factory(Parts, middle, inner=inner)


@di.inject
def injected(outer=di.Inject[Made.outer]):
    return outer


def all_ways(app):
    """The object that `outer` makes, called in each possible form; all must be equal."""
    by_call, by_key, by_injection = app.outer(), app.get("outer"), injected()
    assert by_call == by_key == by_injection
    return by_call


def test_each_call_makes_an_object_of_this_requests_value():
    app = Made()
    with app.running():
        with app.request():
            first, second = all_ways(app), all_ways(app)
            assert first is not second
            assert first.kwargs["inner"].kwargs["user"] is app.user()
        with app.request():
            assert app.users().borrowed == 0
            app.outer()
            assert app.users().borrowed == 1
        assert app.users().borrowed == 0


CHANGES = {
    "set_provides": lambda factory: factory.set_provides(dict),
    "add_args": lambda factory: factory.add_args(2),
    "set_args": lambda factory: factory.set_args(3),
    "clear_args": lambda factory: factory.clear_args(),
    "add_kwargs": lambda factory: factory.add_kwargs(more=1),
    "set_kwargs": lambda factory: factory.set_kwargs(more=1),
    "clear_kwargs": lambda factory: factory.clear_kwargs(),
    "add_attributes": lambda factory: factory.add_attributes(more=1),
    "set_attributes": lambda factory: factory.set_attributes(more=1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["inner", "outer"])
def test_every_kind_of_change_is_seen_at_the_next_call(name, change):
    app = Made()
    with app.running(), app.request():
        before = all_ways(app)
        factory = getattr(app, name)
        if change == "set_provides":
            factory.clear_args()
        assert CHANGES[change](factory) is factory
        after = all_ways(app)
        assert after != before
        assert after == providers.Factory.__call__(app.outer)


def test_attributes_are_set_until_they_are_cleared():
    app = Made()
    with app.running(), app.request():
        app.outer.add_attributes(more=app.user)
        assert app.outer().more is app.user()
        assert app.outer.clear_attributes() is app.outer
        assert not hasattr(app.outer(), "more")


def test_changes_of_one_container_are_not_seen_in_another_nor_in_the_class():
    one, two = Made(), Made()
    with one.running(), two.running():
        with two.request():
            before = two.outer().args
        one.outer.add_args("more")
        with one.request():
            assert one.outer().args[-1] == "more"
        with two.request():
            assert len(two.outer().args) == len(before)
    assert "more" not in Made.outer.args


def test_arguments_of_the_call_are_added_or_replace():
    app = Made()
    with app.running():
        with app.request():
            assert app.inner(2, 3).args == (1, 2, 3)
            assert app.inner(x=1).kwargs == {"x": 1, "user": app.user()}
        with app.request():
            assert app.inner(user="mine").kwargs == {"user": "mine"}
            assert app.users().borrowed == 0, "nothing is taken for what is passed"
            assert app.outer(inner__user="mine").kwargs["inner"].kwargs == {"user": "mine"}


@pytest.mark.parametrize("name", ["user", "inner", "middle", "outer"])
def test_overrides_are_seen_at_once_and_undone(name):
    app = Made()
    fake = providers.Object("fake")
    with app.running(), app.request():
        before = all_ways(app)
        with getattr(app, name).override(fake):
            overridden = app.outer(), app.get("outer"), injected()
            assert overridden[0] == overridden[1] == overridden[2] == providers.Factory.__call__(app.outer)
            assert overridden[0] == "fake" or overridden[0] != before
        assert all_ways(app) == before


def test_a_selector_is_asked_at_each_call():
    class Chosen(Threaded):
        config = providers.Configuration(default={"which": "one"})
        which = providers.Selector(config.which, one=providers.Object("uno"), two=Threaded.user)
        made = di.Factory(Parts, which)

    app = Chosen()
    with app.running(), app.request():
        assert app.made().args == ("uno",)
        assert app.users().borrowed == 0
        app.config.which.from_value("two")
        assert app.made().args == (app.user(),)
        assert app.users().borrowed == 1


def test_outside_of_a_request_and_of_a_container_it_says_what_is_missing():
    app = Made()
    with app.running(), pytest.raises(RequestContextError, match="no request is open here"):
        app.outer()
    with app.running(), app.request(), pytest.raises(ConfigurationError, match="build the container first"):
        Made.outer()


def test_without_pooled_values_no_request_is_needed():
    assert di.Factory(Parts, di.Factory(dict, a=1))() == Parts({"a": 1})
    assert di.Factory("builtins.dict", a=1)() == {"a": 1}


async def test_awaited_it_takes_values_of_asyncio_pools_first():
    class Async(App):
        made = di.Factory(Repo, user=App.report)

    app = Async()
    async with app.running():
        async with app.request():
            with pytest.raises(RequestContextError, match="must be awaited"):
                app.made()
            made = await app.made.aget()
            assert made.user is app.report()
            assert app.made().user is made.user, "it is there now"
            assert app.reports().borrowed == 1
        assert app.reports().borrowed == 0
        with app.made.override(providers.Object("fake")):
            async with app.request():
                assert await app.made.aget() == "fake"


async def test_a_graph_with_something_asynchronous_gives_a_future_as_the_librarys_does():
    async def late():
        await asyncio.sleep(0)
        return "late"

    made = di.Factory(Parts, providers.Coroutine(late))
    for _ in range(2):
        assert (await made()).args == ("late",)
        assert (await made.aget()).args == ("late",)
    of_made = di.Factory(Parts, made)
    assert (await of_made()).args == (Parts("late"),)


async def test_async_mode_makes_futures_from_the_next_call_on():
    made = di.Factory(Parts, 1)
    of_made = di.Factory(Parts, made)
    assert of_made().args == (Parts(1),)
    made.enable_async_mode()
    assert (await made()) == Parts(1)
    assert (await of_made()).args == (Parts(1),)


def test_it_serves_the_librarys_own_wiring_delegates_and_aggregates():
    class Wired(containers.DeclarativeContainer):
        made = di.Factory(Parts, 1)
        aggregate = providers.FactoryAggregate(a=made)
        of_provider = di.Factory(Parts, made.provider)

    container = Wired()
    assert container.aggregate("a").args == container.aggregate.a().args == (1,)
    assert container.of_provider().args == (container.made,)
    assert isinstance(container.made, di.Factory), "a container's copy is of the same kind"
    assert str(container.made).startswith("<pooling.di.providers.Factory(")
    assert providers.is_provider(container.made)
    with pytest.raises(TypeError):
        di.Factory(int, 1, base="x")()


class OfParts(di.Factory):
    provided_type = Parts


class Counting(di.Factory):
    __slots__ = ("calls",)

    def __call__(self, *args, **kwargs):
        self.calls = getattr(self, "calls", 0) + 1
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("kind", [OfParts, Counting])
def test_a_subclass_is_called_by_itself_and_inside_another_factory(kind):
    class Own(Threaded):
        made = kind(Parts, 1, user=Threaded.user)
        outer = di.Factory(Parts, made)

    app = Own()
    with app.running(), app.request():
        for _ in range(2):
            assert app.made() == app.get("made") == Parts(1, user=app.user())
            assert app.outer() == app.get("outer") == Parts(Parts(1, user=app.user()))
        with app.made.override("fake"):
            assert app.outer() == Parts("fake")
        app.made.set_args(2)
        assert app.outer() == Parts(Parts(2, user=app.user()))
        if kind is Counting:
            assert app.made.calls == 10
    with pytest.raises(Error, match="can provide only"):
        OfParts(dict)


def test_a_factory_that_is_part_of_a_plan_does_not_keep_it_alive():
    made = di.Factory(Parts, 1)

    class Local(Parts):
        pass

    outer = di.Factory(Local, made)
    outer()
    gone = weakref.ref(Local)
    del outer, Local
    gc.collect()
    assert gone() is None
    made.add_args(2)
    assert made().args == (1, 2)


def test_threads_that_call_while_it_is_changed_get_objects_of_before_or_after():
    made = di.Factory(Parts, 0)
    outer = di.Factory(Parts, made)

    def calls(_):
        return {outer().args[0].args[0] for _ in range(200)}

    with ThreadPoolExecutor(4) as threads:
        seen = threads.map(calls, range(4))
        for number in range(1, 200):
            made.set_args(number)
        assert all(numbers <= set(range(200)) for numbers in seen)
    assert outer().args[0].args == (199,)


def test_a_start_sees_what_has_changed_in_factories_of_the_library_below_it():
    class Mixed(di.Container):
        inner = providers.Factory(Parts, 1)
        outer = di.Factory(Parts, inner)

    app = Mixed()
    with app.running():
        assert app.outer() == Parts(Parts(1))
    app.inner.add_args(2)
    with app.running():
        assert app.outer() == app.get("outer") == Parts(Parts(1, 2))


def test_a_name_that_is_two_arguments_is_passed_as_the_library_passes_it():
    class Record:
        def __init__(self, name="default", /, **fields):
            self.given = (name, fields)

    assert di.Factory(Record, name="x")().given == ("default", {"name": "x"})


def test_a_provider_may_be_called_plans():
    class Planned(di.Container):
        plans = di.Factory(Parts, 1)

    assert Planned().plans() == Parts(1)
