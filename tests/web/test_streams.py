"""Streams, websockets and background tasks of a user who may have three connections, on a real Postgres."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Annotated, Any

import httpx
import pytest
from dependency_injector import providers
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from psycopg import AsyncConnection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lakebase import AsyncLakebasePoolManager, request_identity
from pooling import RequestContext, di
from pooling.web.fastapi import Injected, install
from tests.web.servers import Uvicorn, eventually
from tests.web.truth_sites import INSERT, INSERT_CHILD, READ, aparts


class App(di.Container):
    config = providers.Dependency()
    pools = di.Managed(AsyncLakebasePoolManager, config, max_total=12, stop="close_all")
    connection = di.Pooled(pools, select=lambda pools, ctx: pools.for_user(ctx["identity"]))


Connection = Annotated[AsyncConnection[Any], Injected[App.connection]]
BriefConnection = Annotated[AsyncConnection[Any], Injected[App.connection, "handler"]]


class Served:
    """The app of a test and its server; `routes` adds to the app before it serves."""

    def __init__(self, lake, user, routes, **options) -> None:
        self.user = user
        self.container = App(config=lake.config(lake.client_id, max_size=3, timeout=20))
        self.app = FastAPI()
        install(self.app, self.container, values=request_identity, **options)
        routes(self.app)
        self.server = Uvicorn(self.app)

    def __enter__(self):
        self.server.__enter__()
        self.client = httpx.Client(base_url=self.server.url, headers=self.user.headers, timeout=30)
        return self

    def __exit__(self, *error) -> None:
        self.client.close()
        self.server.__exit__(*error)

    @property
    def borrowed(self) -> int:
        return self.container.pools().stats().borrowed

    def websocket(self, path):
        return connect(f"ws://127.0.0.1:{self.server.port}{path}", additional_headers=self.user.headers)


@pytest.fixture
def serve(lakebase_local, lakebase_user, database):
    with ExitStack() as stack:
        yield lambda routes, **options: stack.enter_context(Served(lakebase_local, lakebase_user, routes, **options))


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_for_all", [False, True])
def test_three_open_streams_of_a_user_leave_the_fourth_request_its_connection(serve, gate, database, is_for_all):
    def routes(app):
        @app.get("/events")
        async def events(
            connection=Injected[App.connection] if is_for_all else Injected[App.connection, "handler"],
        ):
            await connection.execute(READ)
            return StreamingResponse(aparts(gate), media_type="text/event-stream")

        @app.get("/now")
        async def now(connection: Connection):
            await connection.execute(READ)

    served = serve(routes, **({"release": "handler"} if is_for_all else {}))
    with ExitStack() as open_streams:
        bodies = [open_streams.enter_context(served.client.stream("GET", "/events")).iter_raw() for _ in range(3)]
        assert [next(body) for body in bodies] == [b"one"] * 3
        assert served.borrowed == 0
        assert served.client.get("/now").status_code == 200
        assert database.transactions() == []
        gate.event.set()
        assert [b"".join(body) for body in bodies] == [b"two"] * 3, "they were open until now"


def test_a_value_that_another_dependency_needs_longer_stays_until_the_end(serve, gate, n):
    def routes(app):
        @app.get("/{order}")
        async def mixed(order: str, brief: BriefConnection, long: Connection):
            assert brief is long
            return StreamingResponse(aparts(gate))

        @app.get("/in/other/order")
        async def other(long: Connection, brief: BriefConnection):
            return StreamingResponse(aparts(gate))

    served = serve(routes)
    for path in ("/one", "/in/other/order"):
        gate.event.clear()
        with served.client.stream("GET", path) as stream:
            body = stream.iter_raw()  # a body that is collected closes the stream
            assert next(body) == b"one"
            assert served.borrowed == 1
            gate.event.set()
            assert list(body) == [b"two"]
        eventually(lambda: served.borrowed == 0)


def test_one_dependency_may_keep_its_value_where_the_app_gives_all_back(serve, gate):
    def routes(app):
        @app.get("/")
        async def keep(connection: Annotated[AsyncConnection[Any], Injected[App.connection, "end"]]):
            async def body():
                yield b"one"
                await gate.await_it()
                row = await (await connection.execute("select 2")).fetchone()
                yield str(row)

            return StreamingResponse(body())

    served = serve(routes, release="handler")
    with served.client.stream("GET", "/") as stream:
        body = stream.iter_raw()
        assert next(body) == b"one"
        assert served.borrowed == 1
        gate.event.set()
        assert next(body) == b"(2,)"
    eventually(lambda: served.borrowed == 0)


def test_an_injected_function_may_ask_for_its_value_until_the_handler_returns(serve, gate):
    def routes(app):
        @app.get("/")
        @di.inject
        async def home(connection: Annotated[AsyncConnection[Any], di.Inject(App.connection, "handler")]):
            await connection.execute(READ)
            return StreamingResponse(aparts(gate))

    served = serve(routes)
    with served.client.stream("GET", "/") as stream:
        body = stream.iter_raw()
        assert next(body) == b"one"
        assert served.borrowed == 0
        gate.event.set()
        assert list(body) == [b"two"]


def test_a_stream_takes_a_connection_for_each_part_and_holds_none_in_between(serve, gate, database, n):
    @di.part
    @di.inject
    async def write(number, connection: AsyncConnection[Any] = di.Inject[App.connection]):
        await connection.execute(INSERT, [number])

    def routes(app):
        @app.get("/")
        async def events():
            async def body():
                for number in (n * 1000, n * 1000 + 1):
                    await write(number)
                    yield f"{number}\n"
                    await gate.await_it()

            return StreamingResponse(body())

    served = serve(routes)
    with served.client.stream("GET", "/") as stream:
        lines = stream.iter_lines()
        first = int(next(lines))
        assert database.has(first), "what a message tells is committed"
        assert served.borrowed == 0
        gate.event.set()
        assert database.has(int(next(lines)))


def test_a_failed_commit_of_a_brief_value_is_an_error(serve, database, n):
    def routes(app):
        @app.post("/", status_code=201)
        async def add(connection: BriefConnection):
            await connection.execute(INSERT_CHILD, [n])

    served = serve(routes)
    assert served.client.post("/").status_code == 500
    assert served.borrowed == 0
    assert database.transactions() == []


# --- background tasks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["end", "handler"])
def test_a_background_task_is_a_transaction_of_its_own(serve, database, n, release):
    n *= 1000

    def routes(app):
        @app.post("/{fails}", status_code=201)
        async def add(fails: bool, tasks: BackgroundTasks, connection: Connection):
            await connection.execute(INSERT, [n + fails * 10])

            async def later():
                own = await served.container.connection.aget()
                assert own is connection or release == "handler"
                await own.execute(INSERT, [n + 1 + fails * 10])
                if fails:
                    raise LookupError("in the background")

            tasks.add_task(later)

    served = serve(routes, release=release)
    assert served.client.post("/false").status_code == 201
    assert served.client.post("/true").status_code == 201
    eventually(lambda: served.borrowed == 0)
    assert [database.has(number) for number in (n, n + 1, n + 10, n + 11)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("release", "asked", "held"), [("end", "response", 0), ("response", "end", 1), ("response", "response", 0)]
)
def test_a_dependency_says_whether_its_value_is_held_during_a_background_task(serve, gate, release, asked, held):
    inside = threading.Event()

    def routes(app):
        @app.get("/")
        async def home(tasks: BackgroundTasks, connection=Injected[App.connection, asked]):
            async def later():
                inside.set()
                await gate.await_it()

            tasks.add_task(later)

    served = serve(routes, release=release)
    assert served.client.get("/").status_code == 200
    assert inside.wait(30)
    assert served.borrowed == held
    gate.event.set()
    eventually(lambda: served.borrowed == 0)


# --- blocks that are still open --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "status"), [("function", 201), ("request", 500)])
def test_a_transaction_that_ends_after_the_answer_is_no_success(serve, database, n, scope, status, caplog):
    def routes(app):
        async def one_transaction(connection: Connection):
            async with connection.transaction():
                yield

        @app.post("/", status_code=201, dependencies=[Depends(one_transaction, scope=scope)])
        async def add(connection: Connection):
            await connection.execute(INSERT, [n])

    served = serve(routes)
    assert served.client.post("/").status_code == status
    assert database.has(n) is (status == 201)
    eventually(lambda: served.borrowed == 0)


# --- websockets ------------------------------------------------------------------------------------------------------


def test_what_was_done_before_a_websocket_is_accepted_is_committed(serve, database, n):
    def routes(app):
        @app.websocket("/{what}")
        async def chat(ws: WebSocket, what: str, connection: Connection):
            await (connection.execute(INSERT_CHILD, [-n]) if what == "orphan" else connection.execute(INSERT, [n]))
            await ws.accept()
            await ws.receive_text()

    served = serve(routes)
    with served.websocket("/add") as ws:
        assert database.has(n)
        assert database.transactions() == []
        ws.send("done")
    with pytest.raises(InvalidStatus, match="500"), served.websocket("/orphan"):
        pass
    eventually(lambda: served.borrowed == 0)


@pytest.mark.parametrize("is_for_all", [False, True])
def test_a_websocket_handler_has_returned_when_the_socket_is_closed(serve, is_for_all):
    def routes(app):
        @app.websocket("/")
        async def chat(
            ws: WebSocket,
            connection=Injected[App.connection] if is_for_all else Injected[App.connection, "handler"],
        ):
            await ws.accept()
            async for text in ws.iter_text():
                row = await (await connection.execute("select %s", [text])).fetchone()
                await ws.send_text(f"{row} {served.borrowed}")

    served = serve(routes, **({"release": "handler"} if is_for_all else {}))
    with served.websocket("/") as ws:
        for text in ("a", "b"):
            ws.send(text)
            assert ws.recv() == f"('{text}',) 1"
    eventually(lambda: served.borrowed == 0)


def test_a_websocket_takes_a_connection_for_each_message(serve, database, n):
    @di.part
    @di.inject
    async def save(number, connection: AsyncConnection[Any] = di.Inject[App.connection]):
        await connection.execute(INSERT, [number])

    def routes(app):
        @app.websocket("/")
        async def chat(ws: WebSocket):
            await ws.accept()
            async for text in ws.iter_text():
                async with RequestContext.current().child(own=True):
                    await save(int(text))
                await ws.send_text("saved")

    served = serve(routes)
    with ExitStack() as sockets:
        chats = [sockets.enter_context(served.websocket("/")) for _ in range(4)]  # more than the user's connections
        for place, ws in enumerate(chats):
            number = n * 1000 + place
            ws.send(str(number))
            assert ws.recv() == "saved"
            assert database.has(number)
        assert served.borrowed == 0
