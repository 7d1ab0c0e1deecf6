"""What the tests of the live page share: servers with the page mounted, and pools to look at."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from pooling import KeyedPoolingService, PoolFactory, PoolingService, RequestContext
from pooling.web.dashboard import Dashboard, WsgiDashboard
from tests.web.servers import PLAIN, Uvicorn, eventually, waitress_server

ANN, BOB = "ann@corp.example", "bob@corp.example"
PATH = "/orders/ann@corp.example/reset/s3cr3t-T0ken-of-ann"

numbers = itertools.count(1)


class Thing:
    """A resource whose representation must not be shown."""

    def __repr__(self) -> str:
        return "<Thing password=hunter2>"


def make_pools(**options: Any) -> KeyedPoolingService[str, Thing]:
    """A pool for each user, under a name of its own; its factory takes no time."""
    return KeyedPoolingService(
        lambda user: PoolFactory.of(Thing),
        max_total=options.pop("max_total", 6),
        name=f"users-{next(numbers)}",
        **options,
    )


def make_pool() -> PoolingService[Thing]:
    """A pool without keys."""
    return PoolingService(Thing, max_size=2, name=f"reports-{next(numbers)}")


@contextlib.contextmanager
def held(pools: KeyedPoolingService[str, Thing], user: str, name: str = f"GET {PATH}") -> Iterator[Thing]:
    """A request of the user holds a resource."""
    with RequestContext(name), pools.lease(user) as thing:
        yield thing


@contextlib.contextmanager
def waiting(pools: KeyedPoolingService[str, Thing], user: str) -> Iterator[None]:
    """A thread waits for the resource of the user that is out, and is served when that comes back."""
    thread = threading.Thread(target=lambda: pools.run(user, lambda thing: None), name="waiter-1")
    with held(pools, user):
        thread.start()
        eventually(lambda: pools.pool(user).pending == 1)
        yield
    thread.join(30)


@contextlib.contextmanager
def serve(kind: str, authorize: Any = lambda request: True, **options: Any) -> Iterator[httpx.Client]:
    """A client of a real server with the page at `/pools/`."""
    if kind == "asgi":
        app = Starlette(routes=[Mount("/pools", Dashboard(authorize, **options))])
        with Uvicorn(app) as server, client_of(server.url) as client:
            yield client
    else:
        wsgi = DispatcherMiddleware(lambda *_: [], {"/pools": WsgiDashboard(authorize, **options)})
        with waitress_server(wsgi) as url, client_of(url) as client:
            yield client


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=f"{url}/pools/", timeout=30, **PLAIN)
