"""What `pooling.di` infers, as its users write it; mypy and pyright check it, and importing it does nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, assert_type

import psycopg
import psycopg_pool
from dependency_injector import providers

from pooling import (
    AsyncKeyedPoolingService,
    AsyncPoolingService,
    KeyedPoolingService,
    PoolFactory,
    PoolingService,
    PoolingServiceOptions,
    RequestContext,
    create_pooled_binding_factory,
    di,
)
from pooling.web.fastapi import Injected


class Session:
    def __init__(self, dsn: str = "") -> None:
        self.dsn = dsn

    def query(self) -> int:
        return 1


class SessionFactory(PoolFactory[Session]):
    def __init__(self, dsn: str = "") -> None:
        self.dsn = dsn

    def create(self) -> Session:
        return Session(self.dsn)


class OnlyCreates:
    def create(self) -> Session:
        return Session()


def make() -> Session:
    return Session()


def yields(of: Session) -> Iterator[Session]:
    yield of


def generates(of: Session) -> Generator[Session, None, None]:
    yield of


async def ayields(of: Session) -> AsyncIterator[Session]:
    yield of


async def amake() -> Session:
    return Session()


class Repo:
    def __init__(self, session: Session) -> None:
        self.session = session


class Worker:
    def __init__(self, name: str, size: int = 1) -> None:
        self.name = name

    def close(self) -> None: ...


async def make_worker(name: str) -> Worker:
    return Worker(name)


def session_for(tenant: str) -> PoolFactory[Session]:
    return SessionFactory(tenant)


class Tenants:
    def get_pool(self, key: str) -> PoolingService[Session]:
        return PoolingService(SessionFactory(key))

    def lease(self, key: str) -> psycopg_pool.ConnectionPool[psycopg.Connection[Any]]:
        raise NotImplementedError


class AsyncTenants:
    def get_pool(self, key: str) -> AsyncPoolingService[Session]:
        return AsyncPoolingService(SessionFactory(key))

    @asynccontextmanager
    async def use(self, key: str) -> AsyncGenerator[Session]:
        yield Session(key)


@contextmanager
def use() -> Generator[Session]:
    yield Session()


class OtherPool:
    """A pool of another library, whose values are acquired by `await pool.acquire()`."""

    async def acquire(self) -> Session:
        return Session()

    async def release(self, session: Session) -> None: ...


class App(di.Container):
    config = providers.Configuration()

    # pools
    sessions = di.Pool(SessionFactory(), max_size=4, name="sessions", group="first")
    of_class = di.Pool(Session, {"max_size": 2}, timeout=config.timeout)
    of_function = di.Pool(make, PoolingServiceOptions(max_size=3), max_size=providers.Object(3))
    of_creator = di.Pool(OnlyCreates())
    of_lambda = di.Pool(lambda: Session("x"))
    of_dicts = di.Pool(dict[str, int])
    of_provider = di.Pool(providers.Factory(Session, "x"))
    of_factory_provider = di.Pool(providers.Singleton(SessionFactory, config.dsn))
    of_binding = di.Pool(create_pooled_binding_factory("services.member"))

    async_sessions = di.AsyncPool(SessionFactory(), max_size=4)
    async_of_class = di.AsyncPool(Session)
    async_of_function = di.AsyncPool(make)
    async_of_coroutine = di.AsyncPool(amake)
    async_of_provider = di.AsyncPool(providers.Factory(Session, "x"))

    # other services
    tenants = di.Managed(Tenants)
    async_tenants = di.Managed(AsyncTenants)
    keyed = di.Managed(KeyedPoolingService[str, Session], session_for)
    async_keyed = di.Managed(AsyncKeyedPoolingService[str, Session], session_for)
    database = di.Managed(psycopg_pool.ConnectionPool[psycopg.Connection[Any]], "", open=False)
    async_database = di.Managed(psycopg_pool.AsyncConnectionPool[psycopg.AsyncConnection[Any]], "", open=False)
    worker = di.Managed(Worker, "x", size=config.size, start=None, stop="close")
    stopped = di.Managed(Worker, "x", stop=lambda worker: worker.close())
    awaited = di.Managed(make_worker, "x", stop=Worker.close)
    of_other = di.Managed(worker)

    # a request's values
    session = di.Pooled(sessions)
    class_session = di.Pooled(of_class, timeout=2.0, name="other")
    async_session = di.Pooled(async_sessions)
    coroutine_session = di.Pooled(async_of_coroutine)
    connection = di.Pooled(database)
    async_connection = di.Pooled(async_database)
    keyed_session = di.Pooled(keyed, key="tenant")
    async_keyed_session = di.Pooled(async_keyed, key=lambda ctx: ctx["tenant"])
    tenant_session = di.Pooled(tenants, key="tenant")
    selected = di.Pooled(tenants, select=lambda tenants, ctx: tenants.get_pool(ctx["tenant"]))
    selected_connection = di.Pooled(tenants, select=lambda tenants, ctx: tenants.lease(ctx["tenant"]))
    async_selected = di.Pooled(async_tenants, select=lambda tenants, ctx: tenants.get_pool(ctx["tenant"]))
    used_once = di.Pooled(async_tenants, select=lambda tenants, ctx: tenants.use(ctx["tenant"]))
    of_use = di.Pooled(use)
    of_other_pool = di.Pooled(OtherPool())
    of_other_provider = di.Pooled(providers.Singleton(OtherPool))
    from_object = di.Pooled(Tenants(), key="tenant")
    from_selected_object = di.Pooled(Tenants(), select=lambda tenants, ctx: tenants.get_pool(ctx["tenant"]))

    # a request's objects that are not pooled
    made = di.PerRequest(make)
    made_of_class = di.PerRequest(Repo, session, checkpoint="flush")
    made_of_coroutine = di.PerRequest(amake)
    made_of_generator = di.PerRequest(yields, session, checkpoint=lambda session: session.query())
    made_of_other_generator = di.PerRequest(generates, of=session)
    made_of_async_generator = di.PerRequest(ayields, session)
    made_of_provider = di.PerRequest(providers.Factory(Session, "x"))

    # what is built on them
    repo = providers.Factory(Repo, session=session)
    own = di.Factory(Repo, session=session)
    single = providers.Singleton(Worker, "x")


def pools(app: App) -> None:
    assert_type(app.sessions(), PoolingService[Session])
    assert_type(app.of_class(), PoolingService[Session])
    assert_type(app.of_function(), PoolingService[Session])
    assert_type(app.of_creator(), PoolingService[Session])
    assert_type(app.of_lambda(), PoolingService[Session])
    assert_type(app.of_dicts(), PoolingService[dict[str, int]])
    assert_type(app.of_provider(), PoolingService[Session])
    assert_type(app.of_factory_provider(), PoolingService[Session])
    assert_type(app.of_binding(), PoolingService[Any])
    assert_type(app.async_sessions(), AsyncPoolingService[Session])
    assert_type(app.async_of_class(), AsyncPoolingService[Session])
    assert_type(app.async_of_function(), AsyncPoolingService[Session])
    assert_type(app.async_of_coroutine(), AsyncPoolingService[Session])
    assert_type(app.async_of_provider(), AsyncPoolingService[Session])


def managed(app: App) -> None:
    assert_type(app.tenants(), Tenants)
    assert_type(app.keyed(), KeyedPoolingService[str, Session])
    assert_type(app.worker(), Worker)
    assert_type(app.stopped(), Worker)
    assert_type(app.awaited(), Worker)
    assert_type(app.of_other(), Worker)


async def made(app: App) -> None:
    assert_type(app.made(), Session)
    assert_type(app.made_of_class(), Repo)
    assert_type(await app.made_of_coroutine.aget(), Session)
    assert_type(app.made_of_generator(), Session)
    assert_type(app.made_of_other_generator(), Session)
    assert_type(await app.made_of_async_generator.aget(), Session)
    assert_type(app.made_of_provider(), Session)


async def values(app: App) -> None:
    assert_type(app.session(), Session)
    assert_type(await app.session.aget(), Session)
    assert_type(app.class_session(), Session)
    assert_type(await app.async_session.aget(), Session)
    assert_type(app.coroutine_session(), Session)
    assert_type(app.connection(), psycopg.Connection[Any])
    assert_type(app.async_connection(), psycopg.AsyncConnection[Any])
    assert_type(app.keyed_session(), Session)
    assert_type(app.async_keyed_session(), Session)
    assert_type(app.tenant_session(), Session)
    assert_type(app.selected(), Session)
    assert_type(app.selected_connection(), psycopg.Connection[Any])
    assert_type(app.async_selected(), Session)
    assert_type(app.used_once(), Session)
    assert_type(app.of_use(), Session)
    assert_type(app.of_other_pool(), Any)
    assert_type(app.of_other_provider(), Any)
    assert_type(app.from_object(), Session)
    assert_type(app.from_selected_object(), Session)
    assert_type(di.Pooled(PoolingService(SessionFactory())), di.Pooled[Session])
    assert_type(di.Pooled(AsyncPoolingService(SessionFactory())), di.Pooled[Session])
    assert_type(di.Pooled(lambda: PoolingService(SessionFactory())), di.Pooled[Session])


async def factories(app: App) -> None:
    assert_type(app.repo(), Repo)
    assert_type(app.own(), Repo)
    assert_type(await app.own.aget(), Repo)


def markers() -> None:
    assert_type(di.Inject[App.repo], Repo)
    assert_type(di.Inject[App.own], Repo)
    assert_type(di.Inject[App.session], Session)
    assert_type(di.Inject[App.async_session], Session)
    assert_type(di.Inject[App.sessions], PoolingService[Session])
    assert_type(di.Inject[App.worker], Worker)
    assert_type(Injected[App.repo], Repo)
    assert_type(Injected[App.sessions], PoolingService[Session])
    assert_type(di.Inject[App.repo, "handler"], Repo)
    assert_type(Injected[App.session, "handler"], Session)
    assert_type(Injected[App.repo, "end"], Repo)


async def awaited_marker() -> None:
    assert_type(await di.Inject(App.repo)(), Repo)


@di.inject
def by_default(number: int, repo: Repo = di.Inject[App.repo]) -> int:
    assert_type(repo, Repo)
    return number


@di.inject(eager=False)
async def by_default_awaited(text: str, session: Session = di.Inject[App.session]) -> str:
    return text


@di.inject
def by_annotation(repo: Annotated[Repo, di.Inject(App.repo)]) -> Repo:
    assert_type(repo, Repo)
    return repo


def handler(repo: Repo = Injected[App.repo]) -> Repo:
    return repo


def annotated_handler(repo: Annotated[Repo, Injected[App.repo]]) -> Repo:
    assert_type(repo, Repo)
    return repo


@di.task(App)
@di.inject
def job(number: int, repo: Repo = di.Inject[App.repo]) -> str:
    return str(number)


@di.task(App, name="nightly", tenant="ann")
async def async_job(number: int) -> str:
    return str(number)


@di.task
def plain_job(number: int) -> str:
    return str(number)


@di.part
@di.inject
async def step(number: int, repo: Repo = di.Inject[App.repo]) -> str:
    return str(number)


@di.task()
def called_job(number: int) -> str:
    return str(number)


async def functions() -> None:
    assert_type(by_default(1), int)
    assert_type(await by_default_awaited("x"), str)
    assert_type(job(1), str)
    assert_type(await async_job(1), str)
    assert_type(plain_job(1), str)
    assert_type(called_job(1), str)
    assert_type(await step(1), str)


def lifecycle() -> None:
    app = App()
    with app.running(timeout=1.0) as running, running.request(tenant="ann") as ctx:
        assert_type(running, App)
        assert_type(ctx, RequestContext)
        assert_type(running.session(), Session)


async def async_lifecycle() -> None:
    async with App().running() as running:
        assert_type(running, App)


def options_are_checked(app: App) -> None:
    di.Pool(Session, max_sizes=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    di.AsyncPool(amake, max_size="3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    app.sessions.configure(max_sizes=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    app.configure("sessions", max_sizes=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
