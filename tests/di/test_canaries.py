"""
What `pooling.di` relies on in dependency-injector, one test each.

A test that fails here after an upgrade says which assumption no longer holds, and what breaks with it.
"""

from __future__ import annotations

import asyncio
import types
from typing import Annotated

import pytest
from dependency_injector import containers, errors, providers, wiring

import pooling.di as di
from tests.di.parts import Repo, Threaded, User


class Plain(providers.Provider):
    """The smallest provider in Python."""

    def __init__(self, value=None):
        super().__init__()
        self.disable_async_mode()
        self.value = value
        self.calls = []

    def _provide(self, args, kwargs):
        self.calls.append((args, kwargs))
        return self.value


def test_a_provider_in_python_is_asked_through_provide():
    """Else `Pooled` and `Pool` resolve to nothing."""
    provider = Plain(3)
    assert provider(1, a=2) == 3
    assert provider.calls == [((1,), {"a": 2})]


def test_a_subclass_may_define_call_and_parents_use_it():
    """Else a second use of a pooled value takes the slow path, or an injected one goes round the request's scope."""

    class Direct(Plain):
        def __call__(self, *args, **kwargs):
            return "direct"

    assert Direct(1)() == "direct"
    assert providers.Factory(Repo, user=Direct(1))().user == "direct"
    assert providers.List(Direct(1))() == ["direct"]


def test_what_calling_does_may_be_a_function_of_each_instance():
    """Else a second use of a pooled value goes through several calls, and an override must be looked for in each."""

    class Chosen(Plain):
        __slots__ = ("__call__",)

    one, two = Chosen(), Chosen()
    one.__call__, two.__call__ = lambda: "one", lambda: "two"
    assert (one(), two()) == ("one", "two")
    assert providers.Factory(Repo, user=one)().user == "one"
    two.override(one)
    assert super(Chosen, two).__call__() == "one"


def test_a_factory_shows_what_it_calls_with_which_arguments_in_their_order():
    """Else a graph that is called as one expression makes other objects than the library does."""
    user = providers.Object(1)
    factory = providers.Factory(dict, user, b=2, a=user)
    assert factory.provides is dict
    assert factory.args == (user,)
    assert list(factory.kwargs.items()) == [("b", 2), ("a", user)]
    assert factory.attributes == {}
    assert list(factory.related) == [user, user]
    assert not factory.is_async_mode_enabled()
    assert factory.add_attributes(c=user).attributes == {"c": user}


def test_what_changes_a_factory_are_the_methods_we_know_and_copies_are_of_its_class():
    """Else a `di.Factory` goes on making what it made before a change, or becomes the library's in a container."""
    changes = {name for name in dir(providers.Factory) if name.startswith(("add_", "set_", "clear_"))}
    assert changes == {name for name in vars(di.Factory) if name.startswith(("add_", "set_", "clear_"))}

    class Own(providers.Factory):
        def set_args(self, *args):
            return super().set_args(*args)

    own = Own(dict)
    assert own.set_args([]) is own
    assert type(providers.deepcopy(own)) is Own


def test_what_is_handed_on_instead_of_called_can_be_told():
    """Else a graph that is called as one expression calls a provider that its receiver wants to call."""
    factory = providers.Factory(dict)
    assert isinstance(factory.provider, providers.Delegate)
    assert factory.provider() is factory
    assert providers.is_delegated(providers.DelegatedFactory(dict))
    assert not providers.is_delegated(factory)


async def test_a_factory_waits_for_the_future_that_a_part_gives():
    """Else it does not matter any more which parts are synchronous, and every graph can be one expression."""

    async def user():
        return 1

    made = providers.Factory(Repo, user=providers.Coroutine(user))()
    assert (await made).user == 1


def test_an_override_answers_before_provide_and_last_overriding_tells_of_it():
    """Else overriding a pool or a provider in tests has no effect, or pre-acquiring follows the wrong graph."""
    provider, other = Plain(1), providers.Object(2)
    with provider.override(other):
        assert provider.last_overriding is other
        assert provider() == 2
    assert provider.last_overriding is None
    assert provider() == 1


def test_override_providers_and_reset_go_through_the_methods_of_the_provider():
    """Else `Pooled` and `Pool` go on answering from their short cuts while they are overridden."""
    heard = []

    class Listening(Plain):
        def override(self, provider):
            heard.append("override")
            return super().override(provider)

        def reset_last_overriding(self):
            heard.append("reset last")
            super().reset_last_overriding()

        def reset_override(self):
            heard.append("reset")
            super().reset_override()

    container = containers.DynamicContainer()
    container.value = Listening(1)
    with container.override_providers(value=providers.Object(2)):
        pass
    with container.value.override(3):
        pass
    container.value.override(4)
    container.reset_override()
    assert heard == ["override", "reset last", "override", "reset last", "override", "reset"]


def test_a_container_copies_its_providers_by_deepcopy_with_one_memo():
    """
    Else the copies of `Pooled` and `Pool` in a container are not connected to each other,
    and containers share pools.
    """

    class App(containers.DeclarativeContainer):
        users = di.Pool(User)
        user = di.Pooled(users)
        repo = providers.Factory(Repo, user=user)

    app = App()
    assert app.users is not App.users
    assert app.repo.kwargs["user"] is app.user
    assert list(app.user.related) == [app.users]


def test_copy_overridings_takes_overrides_along():
    """Else an override on the container's class is lost in its instances."""
    provider, copied = Plain(1), Plain()
    provider.override(providers.Object(2))
    provider._copy_overridings(copied, {})
    assert copied() == 2


def test_object_is_copied_without_copying_its_value():
    """Else each container has a copy of the user's factory, or fails to make one."""

    class Uncopyable:
        def __deepcopy__(self, memo):
            raise AssertionError

    value = Uncopyable()
    assert providers.deepcopy(providers.Object(value)).provides is value


def test_arguments_that_are_no_providers_are_copied():
    """If this changes, `Pool` may pass the user's objects on without `providers.Object` around them."""
    argument = [1]

    class App(containers.DeclarativeContainer):
        value = providers.Factory(Repo, argument)

    assert App().value().user is not argument


def test_a_memo_can_say_which_copy_stands_for_a_provider():
    """
    Else what is derived from a declared provider, such as `Inject[App.repo.provided.user]`,
    resolves on the class.
    """

    class App(containers.DeclarativeContainer):
        repo = providers.Factory(Repo, user="user")

    app = App()
    derived = providers.deepcopy(App.repo.provided.user, {id(App.repo): app.repo})
    with app.repo.override(providers.Factory(Repo, user="other")):
        assert derived() == "other"


def test_related_yields_dependencies_and_overriding_providers():
    """Else start order, checks and pre-acquiring miss parts of the graph."""
    user, extra = providers.Factory(User), providers.Object(1)
    repo = providers.Factory(Repo, user)
    repo.add_attributes(extra=extra)
    override = providers.Object(2)
    repo.override(override)
    assert set(repo.related) == {user, extra, override}
    assert set(repo.traverse()) == {user, extra, override}


def test_related_of_the_collections_and_derived_providers_names_their_parts():
    """Else a pooled value inside a list, a dict or behind an attribute is not awaited first."""
    user = providers.Factory(User)
    for provider in (
        providers.List(user),
        providers.Dict(a=user),
        providers.Callable(print, user),
        user.provided.name,
        providers.Selector(providers.Object("a"), a=user),
        providers.Aggregate(a=user),
        providers.Singleton(Repo, user),
    ):
        assert user in set(provider.traverse()), provider


def test_a_delegate_gives_the_provider_and_not_a_value():
    """Else a value behind `.provider` would have to be taken in advance."""
    user = providers.Factory(User)
    assert isinstance(user.provider, providers.Delegate)
    assert providers.Factory(Repo, user.provider)().user is user


def test_a_selector_shows_its_selector_and_branches():
    """Else both branches are taken from their pools."""
    first, second = providers.Object(1), providers.Object(2)
    selector = providers.Selector(providers.Object("a"), a=first, b=second)
    assert selector.selector() == "a"
    assert selector.providers == {"a": first, "b": second}


def test_instance_type_makes_the_instances_and_setattr_puts_providers_in():
    """Else containers have no `start`, and pools do not learn their keys."""
    seen = []

    class Instance(containers.DynamicContainer):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if isinstance(value, providers.Object):
                seen.append(name)

    class App(containers.DeclarativeContainer):
        instance_type = Instance
        value = providers.Object(1)

    app = App()
    assert type(app) is Instance
    assert seen == ["value"]
    assert app.declarative_parent is App


def test_a_key_with_dots_is_a_provider_like_any_other():
    """Else `bind("a.b", ...)` needs a separate store, and overriding by key does not work."""
    container = containers.DynamicContainer()
    container.set_provider("a.b", providers.Object(1))
    assert container.providers["a.b"]() == 1
    with container.override_providers(**{"a.b": 2}):
        assert container.providers["a.b"]() == 2


def test_a_subclass_shares_the_providers_of_its_parent():
    """Else `Inject[Parent.repo]` is not answered by an instance of a subclass."""

    class Child(Threaded):
        pass

    assert Child.repo is Threaded.repo
    assert Child.providers["repo"] is Threaded.repo


def test_providers_hash_and_compare_by_identity():
    """Else two pooled providers could find each other's value in a request's scope."""
    one, two = di.Pooled(), di.Pooled()
    assert one != two
    assert {one: 1, two: 2}[one] == 1


def test_a_disabled_async_mode_stays_disabled_when_a_value_can_be_awaited():
    """Else one awaitable value turns every provider above it asynchronous permanently."""

    async def main():
        future = asyncio.get_running_loop().create_future()
        provider = Plain(future)
        assert provider() is future
        assert provider.is_async_mode_disabled()
        future.cancel()

    asyncio.run(main())


def test_the_async_mode_hangs_on_a_cancelled_dependency():
    """If this changes, awaiting in the graph might be an alternative to awaiting before it."""

    async def cancelled():
        raise asyncio.CancelledError

    async def main():
        repo = providers.Factory(Repo, providers.Callable(cancelled))
        done, _ = await asyncio.wait([asyncio.ensure_future(repo())], timeout=0.05)
        return done

    loop = asyncio.new_event_loop()
    try:
        assert not loop.run_until_complete(main())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()


def test_resources_do_not_start_in_dependency_order_by_themselves():
    """If this changes, our own walk of the graph at start may be left to the library."""
    order = []

    class App(containers.DeclarativeContainer):
        pass

    orders = set()
    for _ in range(200):
        order.clear()
        container = containers.DynamicContainer()
        container.first = providers.Resource(order.append, 1)
        container.second = providers.Resource(order.append, 2)
        container.init_resources()
        orders.add(tuple(order))
        container.shutdown_resources()
        if len(orders) > 1:
            return
    raise AssertionError("always the same order")


def test_wiring_leaves_our_functions_alone():
    """Else `container.wire()` in the same module wraps injected functions a second time, or warns of them."""
    module = types.ModuleType("wired")

    @di.inject
    def ours(repo: Annotated[Repo, di.Inject(Threaded.repo)], other=di.Inject[Threaded.repo]):
        return repo

    module.ours = ours
    ours.__module__ = "wired"

    class App(containers.DeclarativeContainer):
        value = providers.Object(1)

    app = App()
    app.wire([module], warn_unresolved=True)
    try:
        assert module.ours is ours
        assert not wiring._patched_registry.has_callable(ours)
    finally:
        app.unwire()


def test_the_librarys_own_wiring_injects_our_providers_into_plain_functions():
    """Else applications that already use `@inject` of the library cannot move one function at a time."""
    module = types.ModuleType("wired")

    def theirs(user=wiring.Provide[Threaded.user]):
        return user

    theirs.__module__ = "wired"
    module.theirs = wiring.inject(theirs)
    app = Threaded()
    app.wire([module])
    try:
        with app.running(), app.request():
            assert module.theirs() is app.user()
            assert app.users().borrowed == 1
    finally:
        app.unwire()


def test_dependencies_that_are_missing_are_found_by_the_library():
    """Else a `Dependency` that was not provided is found by the first request instead of at start."""

    class App(containers.DeclarativeContainer):
        url = providers.Dependency()

    with pytest.raises(errors.Error, match=r"App\.url"):
        App().check_dependencies()


def test_options_of_a_configuration_are_among_its_traversal():
    """Else `Inject[App.config.size]` is not recognised as belonging to the container."""
    config = providers.Configuration()
    option = config.pool.size
    assert option in set(config.traverse())
    assert option in set(config.pool.size.as_int().traverse())
