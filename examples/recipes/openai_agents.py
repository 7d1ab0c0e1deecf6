"""
Agents of the OpenAI SDK with a memory in Postgres, and tools that work on the connection of the request's user.

`uvicorn --factory my_agent:create`, where `create` returns `create_app(Agent("assistant", model=…, tools=TOOLS))`.
`python openai_agents.py`, as the owner of the database, makes the tables once.
"""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

from agents import Agent, RunContextWrapper, Runner, SessionSettings, Tool, TResponseInputItem, function_tool
from fastapi import Body, FastAPI
from fastapi.responses import StreamingResponse
from openai.types.responses import ResponseTextDeltaEvent
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from lakebase import AsyncLakebasePoolManager, answer_error, aread_only_query, create_lakebase_pool, request_identity
from pooling import RequestContext
from pooling.di import Container, Inject, Managed, Pooled, inject, part
from pooling.web.fastapi import CurrentRequest, install

SCHEMA = """
    create table agent_items (
        id bigint generated always as identity primary key,
        owner text not null default current_user,
        session text not null,
        item jsonb not null
    );
    create index on agent_items (owner, session, id);
    create table orders (owner text not null default current_user, item text not null);
    alter table agent_items enable row level security;
    alter table orders enable row level security;
    create policy own on agent_items using (owner = current_user);
    create policy own on orders using (owner = current_user);
    grant select, insert, delete on agent_items, orders to public;
"""


class PostgresSession:
    """A conversation, as the SDK's `Session`; each method takes a connection of the user's pool for one transaction."""

    def __init__(self, session_id: str, pool: AsyncConnectionPool[Any]) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = None
        self._pool = pool

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        latest = "select id, item from agent_items where session = %s order by id desc limit %s"
        async with self._pool.connection() as connection:
            found = await connection.execute(f"select item from ({latest}) l order by id", [self.session_id, limit])
            return [item for (item,) in await found.fetchall()]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        async with self._pool.connection() as connection, connection.cursor() as cursor:
            rows = [(self.session_id, Jsonb(item)) for item in items]
            await cursor.executemany("insert into agent_items (session, item) values (%s, %s)", rows)

    async def pop_item(self) -> TResponseInputItem | None:
        last = "select id from agent_items where session = %s order by id desc limit 1"
        async with self._pool.connection() as connection:
            found = await connection.execute(
                f"delete from agent_items where id = ({last}) returning item", [self.session_id]
            )
            row = await found.fetchone()
            return None if row is None else cast("TResponseInputItem", row[0])

    async def clear_session(self) -> None:
        async with self._pool.connection() as connection:
            await connection.execute("delete from agent_items where session = %s", [self.session_id])


def users_pool(pools: AsyncLakebasePoolManager[AsyncConnection[Any]], ctx: RequestContext) -> AsyncConnectionPool[Any]:
    return pools.for_user(ctx["identity"])


class App(Container):
    pools = Managed(AsyncLakebasePoolManager, max_total=50, stop="close_all")
    connection: Pooled[AsyncConnection[Any]] = Pooled(pools, select=users_pool)


@function_tool
@part  # a transaction of its own, committed before the model reads the result
@inject
async def order(item: str, connection: AsyncConnection[Any] = Inject[App.connection]) -> str:
    """Order an item for the user."""
    await connection.execute("insert into orders (item) values (%s)", [item])
    return f"ordered: {item}"


@function_tool
async def query(wrapper: RunContextWrapper[AsyncConnectionPool[Any]], sql: str) -> str:
    """Run one SELECT of PostgreSQL and return its columns and rows as JSON."""
    return (await aread_only_query(wrapper.context, sql)).to_json()


TOOLS: list[Tool] = [order, query]


def create_app(agent: Agent[AsyncConnectionPool[Any]]) -> FastAPI:
    container, app = App(), FastAPI()
    install(app, container, values=request_identity, errors=answer_error)

    @app.post("/chats/{chat}")
    async def chat(
        chat: str, question: Annotated[str, Body()], ctx: Annotated[RequestContext, CurrentRequest]
    ) -> StreamingResponse:
        pool = container.pools().for_user(ctx["identity"])
        run = Runner.run_streamed(agent, question, context=pool, session=PostgresSession(chat, pool))

        async def events() -> AsyncIterator[str]:
            try:
                async for event in run.stream_events():
                    if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                        yield f"data: {json.dumps(event.data.delta)}\n\n"
            finally:
                run.cancel()  # of a client that went away; does nothing to a run that is complete

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def set_up() -> None:
    """Make the tables; run it once, as the owner of the database."""
    with create_lakebase_pool() as pool, pool.connection() as connection:
        connection.execute(SCHEMA)


if __name__ == "__main__":
    set_up()
