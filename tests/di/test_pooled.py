"""`Pooled`: one value per request and pool, by every way to get it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from dependency_injector import providers

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    KeyedPoolingService,
    PoolClosedError,
    PoolingService,
    RequestContext,
    RequestContextError,
    di,
)
from pooling.context import MissingValueError
from tests.di.parts import App, Repo, Threaded, User


def test_every_service_of_a_request_has_the_same_value_and_the_next_request_another_turn():
    app = Threaded()
    with app.running():
        with app.request():
            service = app.service()
            assert service.repo is not service.other
            assert service.repo.user is service.other.user is app.user()
            assert app.users().borrowed == 1
        assert app.users().borrowed == 0
        assert app.users().stats().acquired == 1


def test_two_requests_at_once_have_different_values():
    app = Threaded()
    with app.running(), app.request():
        outer = app.user()
        with app.request():
            assert app.user() is not outer
        assert app.user() is outer


async def test_two_requests_at_once_have_different_values_in_a_loop():
    app = App()
    both = asyncio.Barrier(2)

    async def serve():
        async with app.request():
            value = await app.report.aget()
            await both.wait()
            assert app.report() is value
            return value

    async with app.running():
        first, second = await asyncio.gather(serve(), serve())
        assert first is not second
        assert app.reports().borrowed == 0


def test_without_a_request_the_error_says_how_to_open_one():
    app = Threaded()
    with app.running(), pytest.raises(RequestContextError, match=r"no request is open here.*app\.request\(\)"):
        app.user()


async def test_without_a_request_awaiting_it_says_so_too():
    with pytest.raises(RequestContextError, match="no request is open"):
        await App().report.aget()


def test_after_its_request_the_error_says_that_it_has_ended():
    app = Threaded()
    with app.running():
        with app.request("GET /") as ctx:
            app.user()
        with ctx.active(), pytest.raises(RequestContextError, match="request 'GET /' has ended"):
            app.user()


async def test_a_task_that_outlives_its_request_gets_no_value_of_it():
    app = App()
    go = asyncio.Event()

    async def late():
        await go.wait()
        return await app.report.aget()

    async with app.running():
        async with app.request():
            await app.report.aget()
            task = asyncio.create_task(late())
        go.set()
        with pytest.raises(RequestContextError, match="has ended"):
            await task


def test_threads_of_one_request_share_its_value():
    app = Threaded()
    values = []
    with app.running(), app.request() as ctx:

        def work():
            with ctx.active():
                values.append(app.repo().user)

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(values) == {app.user()}
        assert app.users().borrowed == 1


async def test_an_asyncio_value_is_plain_to_get_once_it_was_awaited():
    app = App()
    async with app.running(), app.request():
        with pytest.raises(RequestContextError, match="must be awaited"):
            app.report()
        value = await app.report.aget()
        assert app.report() is value
        assert app.areport().user is value


async def test_a_pool_for_threads_in_a_loop_is_awaited_the_same_way_and_never_blocks_it():
    app = App()
    async with app.running(), app.request():
        with pytest.raises(RequestContextError, match="would block the event loop"):
            app.user()
        value = await app.user.aget()
        assert app.repo().user is value


def test_two_pooled_providers_of_one_pool_share_their_value_unless_named_apart():
    class Two(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)
        same = di.Pooled(users)
        second = di.Pooled(users, name="second")

    app = Two()
    with app.running(), app.request():
        assert app.user() is app.same()
        assert app.second() is not app.user()
        assert app.second() is app.second()


def test_a_child_context_has_its_parents_value_or_its_own_on_request():
    app = Threaded()
    with app.running(), app.request() as ctx:
        value = app.user()
        with ctx.child():
            assert app.user() is value
        with ctx.child(own=True):
            assert app.user() is not value
        assert app.users().borrowed == 1


def test_options_of_the_pooled_provider_reach_the_pool():
    class Short(di.Container):
        users = di.Pool(User, min_size=1, max_size=1)  # so that the first has not to be made in that time
        user = di.Pooled(users, timeout=0.001)

    app = Short()
    with app.running(), app.request():
        app.user()
        with app.request(), pytest.raises(TimeoutError) as caught:
            app.user()
        assert caught.value.timeout == 0.001


def test_a_pool_made_elsewhere_can_be_the_source():
    with PoolingService(User) as pool:
        provider = di.Pooled(pool)
        with RequestContext():
            assert provider() is provider()
            assert pool.borrowed == 1


def test_a_callable_that_gives_the_pool_can_be_the_source():
    with PoolingService(User) as pool:
        provider = di.Pooled(lambda: pool)
        with RequestContext():
            assert isinstance(provider(), User)
            assert pool.borrowed == 1


# --- pools that depend on the request --------------------------------------------------------------------------------


class Manager:
    """One pool for each user, like the manager of per-user connections."""

    def __init__(self, service=PoolingService):
        self.service = service
        self.pools: dict = {}

    def get_pool(self, key):
        return self.pools.setdefault(key, self.service(User, name=f"pool of {key}"))


def keyed(**how):
    class Keyed(di.Container):
        manager = providers.Singleton(Manager)
        user = di.Pooled(manager, **how)
        repo = providers.Factory(Repo, user=user)

    return Keyed()


@pytest.mark.parametrize(
    "how",
    [
        {"key": "identity"},
        {"key": lambda ctx: ctx["identity"]},
        {"select": lambda manager, ctx: manager.get_pool(ctx["identity"])},
        {"select": lambda manager, ctx: manager.get_pool(ctx["identity"]).lease()},
    ],
)
def test_a_value_comes_from_the_pool_of_the_requests_user(how):
    app = keyed(**how)
    with app.running():
        pools = app.manager().pools
        for name in ("ann", "bob", "ann"):
            with app.request(identity=name):
                assert app.repo().user is app.user()
                assert pools[name].borrowed == 1
            assert pools[name].borrowed == 0
        assert set(pools) == {"ann", "bob"}
        for pool in pools.values():
            pool.stop()


@pytest.mark.parametrize(
    "how",
    [{"key": "identity"}, {"select": lambda manager, ctx: manager.get_pool(ctx["identity"]).lease()}],
)
def test_a_child_with_another_identity_gets_that_ones_pool(how):
    app = keyed(**how)
    with app.running(), app.request(identity="ann") as ctx:
        ann = app.user()
        with ctx.child(identity="bob"):
            assert app.user() is not ann
            assert app.manager().pools["bob"].borrowed == 1
        with ctx.child(step="other"):
            assert app.manager().pools["ann"].is_borrowed(app.user())
        assert app.user() is ann


def test_a_keyed_service_is_a_source_with_a_key():
    class Keyed(di.Container):
        users = di.Managed(KeyedPoolingService, lambda key: User)
        user = di.Pooled(users, key="tenant")

    app = Keyed()
    with app.running():
        with app.request(tenant="acme"):
            assert app.user() is app.user()
            assert app.users().pool("acme").borrowed == 1
        assert app.users().pool("acme").borrowed == 0


@pytest.mark.parametrize(
    "how", [{"key": "identity"}, {"select": lambda manager, ctx: manager.get_pool(ctx["identity"])}]
)
def test_a_request_without_identity_is_told_what_is_missing_and_reaches_no_pool(how):
    app = keyed(**how)
    with app.running(), app.request("GET /orders"):
        with pytest.raises(MissingValueError, match="request 'GET /orders' has no value 'identity'"):
            app.repo()
        assert not app.manager().pools


def test_an_identity_of_none_reaches_no_pool():
    app = keyed(key="identity")
    with app.running(), app.request(identity=None):
        with pytest.raises(MissingValueError, match="identity=None"):
            app.user()
        assert not app.manager().pools


async def test_an_asyncio_pool_can_depend_on_the_request_too():
    class Keyed(di.Container):
        manager = providers.Singleton(Manager, service=AsyncPoolingService)
        user = di.Pooled(manager, key="identity")
        repo = providers.Factory(Repo, user=user)

    @di.inject
    async def who(repo: Repo = di.Inject[Keyed.repo]):
        return repo.user

    app = Keyed()
    async with app.running():
        async with app.request(identity="ann"):
            assert await who() is await who()
        pool = app.manager().pools["ann"]
        assert pool.borrowed == 0
        await pool.stop()


def test_key_and_select_exclude_each_other():
    with pytest.raises(ConfigurationError, match="select and key exclude each other"):
        di.Pooled(Manager(), key="a", select=lambda manager, ctx: None)


def test_a_key_for_a_source_without_keys_says_what_to_do():
    with PoolingService(User) as pool, RequestContext(user="ann"):
        with pytest.raises(ConfigurationError, match="use select="):
            di.Pooled(pool, key="user")()


# --- overriding ------------------------------------------------------------------------------------------------------


def test_the_pooled_provider_can_be_overridden_and_comes_back():
    app, fake = Threaded(), User()
    with app.running(), app.request():
        real = app.user()
        with app.user.override(fake):
            assert app.user() is fake
            assert app.repo().user is fake
        assert app.repo().user is real
        with app.override_providers(user=providers.Object(fake)):
            assert app.service().other.user is fake
        assert app.user() is real


def test_the_pooled_provider_can_be_overridden_outside_of_a_request():
    app, fake = Threaded(), User()
    with app.user.override(fake):
        assert app.service().repo.user is fake
    assert Threaded(user=providers.Object(fake)).repo().user is fake


def test_the_pool_can_be_overridden_and_comes_back():
    app = Threaded()
    with PoolingService(User) as other, app.running():
        with app.users.override(other):
            with app.request():
                app.user()
                assert other.borrowed == 1
            assert app.users() is other
        assert other.borrowed == 0
        with app.request():
            app.user()
            assert app.users().borrowed == 1
            assert other.stats().acquired == 1


def test_the_members_can_be_overridden_and_come_back():
    class Members(di.Container):
        member = providers.Factory(Repo, user="real")
        pool = di.Pool(member)
        value = di.Pooled(pool)

    app = Members()
    with app.member.override(providers.Factory(Repo, user="fake")):
        with app.running(), app.request():
            assert app.value().user == "fake"
    with app.running(), app.request():
        assert app.value().user == "real"


def test_overriding_twice_and_resetting_all_gives_the_real_one():
    app = Threaded()
    with app.running(), app.request():
        real = app.user()
        app.user.override(1)
        app.user.override(2)
        assert app.user() == 2
        app.user.reset_last_overriding()
        assert app.user() == 1
        app.user.reset_override()
        assert app.user() is real


def test_overrides_of_the_class_are_in_its_instances():
    class Overridden(di.Container):
        users = di.Pool(User)
        user = di.Pooled(users)

    fake = User()
    with Overridden.user.override(providers.Object(fake)):
        app = Overridden()
    assert app.user() is fake
    app.user.reset_override()
    with app.running(), app.request():
        assert app.user() is not fake


# --- containers ------------------------------------------------------------------------------------------------------


def test_two_containers_never_share_a_pool():
    first, second = Threaded(), Threaded()
    with first.running(), second.running():
        assert first.users() is not second.users()
        with first.request(), second.request():
            assert first.user() is not second.user()
            assert first.users().borrowed == second.users().borrowed == 1


def test_a_declaration_is_not_a_pool():
    with pytest.raises(ConfigurationError, match=r"Threaded.users is a declaration"):
        Threaded.users()
    with RequestContext(), pytest.raises(ConfigurationError, match=r"Threaded.user is a declaration"):
        Threaded.user()


def test_a_nested_container_has_its_own_pools():
    class Outer(di.Container):
        inner = providers.Container(Threaded)
        repo = providers.Factory(Repo, user=inner.user)

    first, second = Outer(), Outer()
    with first.running(), second.running():
        assert first.inner().users() is not second.inner().users()
        with first.request():
            assert first.repo().user is first.inner.user()
        assert not second.inner.users().borrowed
    assert not first.inner.users().is_running


def test_one_first_use_makes_one_pool_however_many_threads_ask():
    app = Threaded()
    pools, ready = [], threading.Barrier(8)

    def work():
        ready.wait(20)
        pools.append(app.users())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(pools)) == 1


def test_a_part_of_a_request_hands_out_nothing_after_the_request_has_ended():
    app = Threaded()
    with app.running():
        with app.request() as ctx:
            part = ctx.child()
            nested = part.child()
            for each in (part, nested):
                with each.active():
                    assert app.repo().user is app.user()
        late = ctx.child() if not ctx.is_closed else part
        with app.request():
            app.user()
            for each in (part, nested, late):
                with each.active():
                    for asks in (app.user, app.repo, lambda: app.get("repo")):
                        with pytest.raises(RequestContextError, match="has ended"):
                            asks()


# --- pools that are replaced between their choice and their use ------------------------------------------------------


class Replaced:
    """Returns pools of which the first few are closed before they can be used."""

    def __init__(self, kind, closed):
        self.kind, self.closed, self.chosen = kind, closed, 0
        self.last = kind(dict, max_size=1)

    def choose(self):
        self.chosen += 1
        if self.chosen > self.closed:
            return self.last
        pool = self.kind(dict, max_size=1)
        stopping = pool.stop()
        if stopping is not None:  # the end of a pool that was never started does not suspend
            with pytest.raises(StopIteration):
                stopping.send(None)
        return pool


def choosing(pools):
    class Choosing(di.Container):
        value = di.Pooled(pools.choose, select=lambda pool, request: pool)

    return Choosing()


def test_a_pool_closed_after_it_was_chosen_is_replaced_in_a_thread():
    pools = Replaced(PoolingService, closed=2)
    app = choosing(pools)
    with app.request():
        assert pools.last.is_borrowed(app.value())
    assert (pools.chosen, pools.last.borrowed) == (3, 0)


async def test_a_pool_closed_after_it_was_chosen_is_replaced_in_a_loop():
    pools = Replaced(AsyncPoolingService, closed=2)
    app = choosing(pools)
    async with app.request():
        assert pools.last.is_borrowed(await app.value.aget())
        assert pools.last.is_borrowed(app.value())
    assert (pools.chosen, pools.last.borrowed) == (3, 0)


async def test_a_pool_chosen_again_after_it_was_closed_is_an_error():
    pools = Replaced(AsyncPoolingService, closed=0)
    app = choosing(pools)
    async with asyncio.timeout(5):
        await pools.last.stop()
        async with app.request():
            with pytest.raises(PoolClosedError):
                await app.value.aget()


@pytest.mark.parametrize("option", ["timout", "priorty", "time_out", "selct"])
def test_a_misspelt_option_is_told_at_construction(option):
    for source in (di.Pool(User), PoolingService(User), di.Managed(dict)):
        with pytest.raises(ConfigurationError, match=f"there is no option '{option}'; did you mean"):
            di.Pooled(source, **{option: 3})


def test_an_option_that_no_pool_of_this_package_has_is_told_at_construction():
    with pytest.raises(ConfigurationError, match="no option 'deadline'; acquire has timeout and priority"):
        di.Pooled(di.Pool(User), deadline=3)
    di.Pooled(di.Managed(dict), deadline=3)  # another pool may have it
