"""`RoutingPool`: the request's user's pool, or the app's, and never one for the other."""

from __future__ import annotations

import psycopg_pool
import pytest

from lakebase import (
    AsyncRoutingPool,
    IdentityError,
    LoginError,
    RoutingPool,
    UserIdentity,
    create_async_lakebase_pool,
    create_lakebase_pool,
    request_identity,
)
from pooling import RequestContext, RequestContextError
from tests.contract.harness import on_both
from tests.dropin.parts import ask, connection, wait
from tests.live.manager_parts import Managers, identity


class Routing(Managers):
    """A routing pool between an app's pool and a manager."""

    def route(self, **options):
        self.manager = self.make(**options)
        threads = self.side.name == "threads"
        create = create_lakebase_pool if threads else create_async_lakebase_pool
        self.app = create(self.lake.config(max_size=2))
        return (RoutingPool if threads else AsyncRoutingPool)(self.app, self.manager.for_user)

    async def __aexit__(self, *error):
        await wait(self.app.close())
        await super().__aexit__(*error)


class request:
    """A request of either kind, for `async with`."""

    def __init__(self, side, **values):
        self.side = side
        self.context = RequestContext("request", **values)

    async def __aenter__(self):
        if self.side.name == "threads":
            return self.context.__enter__()
        return await self.context.__aenter__()

    async def __aexit__(self, *error):
        if self.side.name == "threads":
            return self.context.__exit__(*error)
        return await self.context.__aexit__(*error)


async def who(pool):
    async with connection(pool) as conn:
        return await ask(conn, "select current_user::text")


@on_both
async def test_inside_a_users_request_it_is_the_users_pool_and_outside_the_apps(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann, bob = identity(lakebase_local), identity(lakebase_local)
        assert await who(pool) == lakebase_local.admin_user
        async with request(side, identity=ann):
            assert await who(pool) == ann.user
            async with request(side, identity=bob):
                assert await who(pool) == bob.user
            assert await who(pool) == ann.user
        assert await who(pool) == lakebase_local.admin_user


@pytest.mark.parametrize("values", [{}, {"identity": None}], ids=["without", "None"])
@on_both
async def test_a_request_without_an_identity_gets_the_apps_pool_only_if_that_is_allowed(side, lakebase_local, values):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        async with request(side, **values):
            for use in (lambda: who(pool), lambda: wait(pool.getconn())):
                with pytest.raises(IdentityError, match=r"has no identity.*allow_app_in_requests=True"):
                    await use()
        assert "connections_num" not in routing.app.get_stats()
        allowing = type(pool)(routing.app, pool.resolve_user_pool, allow_app_in_requests=True)
        async with request(side, **values):
            assert await who(allowing) == lakebase_local.admin_user
            async with request(side, identity=UserIdentity("ann", from_request=True)):
                with pytest.raises(IdentityError, match="proves nothing"):
                    await who(allowing)


@on_both
async def test_an_identity_that_is_read_lazily_selects_a_pool_when_one_is_needed(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann = identity(lakebase_local)
        headers = {"X-Forwarded-Email": ann.user, "X-Forwarded-Access-Token": ann.token}
        async with request(side, **request_identity({"headers": headers})):
            assert await who(pool) == ann.user
        async with request(side, **request_identity({"headers": {}})):
            with pytest.raises(IdentityError, match="carries no user identity"):
                await who(pool)


@on_both
async def test_a_name_outside_of_ascii_is_the_role_of_its_user(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann = identity(lakebase_local, f"jérôme {side.name}@corp.example")
        headers = {"X-Forwarded-Email": ann.user.encode().decode("latin-1"), "X-Forwarded-Access-Token": ann.token}
        async with request(side, identity=UserIdentity.from_headers(headers)):
            assert await who(pool) == ann.user


@on_both
async def test_an_address_written_with_capitals_is_told_as_the_likely_cause(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann = identity(lakebase_local)
        async with request(side, identity=UserIdentity(ann.user.title(), ann.token)):
            with pytest.raises(LoginError) as refused:
                await who(pool)
        assert f"the role is spelled {ann.user.title()!r}, and not {ann.user!r}" in str(refused.value)


@on_both
async def test_a_connection_goes_back_to_the_pool_it_came_from(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann = identity(lakebase_local)
        async with request(side, identity=ann):
            conn = await wait(pool.getconn())
            assert await ask(conn, "select current_user::text") == ann.user
        await wait(pool.putconn(conn))
        assert routing.manager.get_pool(ann.user)._pool == [conn]
        assert routing.app._pool == []


@on_both
async def test_an_identity_that_proves_nothing_gets_no_pool_at_all(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann = identity(lakebase_local)
        async with request(side, identity=ann):
            await who(pool)
        claimed = UserIdentity.from_headers({"X-Forwarded-Email": ann.user})
        async with request(side, identity=claimed):
            with pytest.raises(IdentityError, match="proves nothing"):
                await who(pool)
            with pytest.raises(IdentityError):
                await wait(pool.getconn())


@pytest.mark.parametrize("answer", ["nothing", "the app's"])
@on_both
async def test_a_user_without_a_pool_never_gets_the_apps(side, lakebase_local, answer):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        pool.resolve_user_pool = lambda identity: None if answer == "nothing" else routing.app
        async with request(side, identity=identity(lakebase_local)):
            with pytest.raises(LookupError, match="refusing to fall back to the app's pool"):
                await who(pool)
            with pytest.raises(LookupError):
                await wait(pool.getconn())


@on_both
async def test_an_error_of_the_resolver_is_the_requests(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()

        def refuses(identity):
            raise PermissionError(identity.user)

        pool.resolve_user_pool = refuses
        async with request(side, identity=identity(lakebase_local)):
            with pytest.raises(PermissionError):
                await who(pool)


@on_both
async def test_a_pool_replaced_between_look_up_and_use_is_looked_up_again(side, lakebase_local):
    async with Routing(side, lakebase_local) as routing:
        pool = routing.route()
        ann = identity(lakebase_local)
        looked_up = []

        def replaced_once(found):
            got = routing.manager.for_user(found)
            looked_up.append(got)
            if len(looked_up) % 3 == 1:
                renewed = identity(lakebase_local, ann.user)  # another request replaces the pool
                routing.manager.get_pool(ann.user, renewed.pool_config(), renewed.fingerprint)
            return got

        pool.resolve_user_pool = replaced_once
        async with request(side, identity=ann):
            assert await who(pool) == ann.user
            assert len(looked_up) == 3
            conn = await wait(pool.getconn())
            assert await ask(conn, "select current_user::text") == ann.user
            await wait(pool.putconn(conn))
        pool.resolve_user_pool = lambda found: closed
        closed = routing.manager.for_user(ann)
        await wait(closed.close())
        async with request(side, identity=ann):
            with pytest.raises(psycopg_pool.PoolClosed):
                await who(pool)


@on_both
async def test_a_request_that_has_ended_selects_no_pool(side, lakebase_local):
    """A task that it has started keeps it as the current request, and may serve others by then."""
    async with Routing(side, lakebase_local) as managers:
        routing = managers.route()
        seen = []
        async with request(side, identity=identity(lakebase_local)) as ctx:
            ctx.on_close(lambda _: seen.append(routing.current))
            mine = routing.current
        assert seen == [mine]  # until its end is over
        with ctx.active(), pytest.raises(RequestContextError, match=r"request.*has ended.*for_user"):
            await who(routing)
