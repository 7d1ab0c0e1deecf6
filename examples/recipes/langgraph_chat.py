"""
A chat whose threads and memories are each user's own, kept by Postgres: `uvicorn --factory my_chat:create`.

`python langgraph_chat.py`, as the owner of the database, makes the tables once.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
from fastapi import Body, FastAPI
from fastapi.responses import StreamingResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime, tools_condition
from langgraph.runtime import Runtime
from langgraph.store.postgres import PostgresStore
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row

from lakebase import (
    AsyncLakebasePool,
    AsyncLakebasePoolManager,
    UserIdentity,
    answer_error,
    aread_only_query,
    create_lakebase_pool,
    request_identity,
)
from pooling import RequestContext
from pooling.di import Container, Managed
from pooling.web.fastapi import CurrentRequest, install

# What LangGraph's own `from_conn_string` sets, too.
CONNECTIONS: dict[str, Any] = {"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0}

OWN_ROWS = """
    alter table {table} enable row level security;
    drop policy if exists own_rows on {table};
    create policy own_rows on {table}
        using (split_part({column}, '.', 1) = encode(convert_to(current_user, 'UTF8'), 'hex'));
    grant select, insert, update, delete on {table} to public;
"""


@dataclass
class Caller:
    """Who runs the graph, and on which connections."""

    identity: UserIdentity
    pool: AsyncLakebasePool[AsyncConnection[DictRow]]

    @property
    def label(self) -> str:
        """The beginning of this user's threads and namespaces, which have dots between their parts."""
        return self.identity.user.encode().hex()


class App(Container):
    pools = Managed(
        AsyncLakebasePoolManager,
        connection_class=AsyncConnection[DictRow],
        kwargs=CONNECTIONS,
        max_total=50,
        stop="close_all",
    )


@tool
async def query(sql: str, runtime: ToolRuntime[Caller]) -> str:
    """Run one SELECT of PostgreSQL and return its columns and rows as JSON."""
    return (await aread_only_query(runtime.context.pool, sql)).to_json()


@tool
async def remember(fact: str, runtime: ToolRuntime[Caller]) -> str:
    """Keep a fact about the user for later conversations."""
    assert runtime.store is not None
    await runtime.store.aput((runtime.context.label, "facts"), fact, {"fact": fact})
    return "noted"


def make_graph(model: BaseChatModel) -> StateGraph[MessagesState, Caller, MessagesState, MessagesState]:
    agent = model.bind_tools([query, remember])

    async def answer(state: MessagesState, runtime: Runtime[Caller]) -> dict[str, Any]:
        assert runtime.store is not None
        facts = await runtime.store.asearch((runtime.context.label, "facts"))
        known = "You know of the user: " + "; ".join(item.value["fact"] for item in facts)
        return {"messages": [await agent.ainvoke([("system", known), *state["messages"]])]}

    graph = StateGraph(MessagesState, context_schema=Caller)
    graph.add_node("answer", answer)
    graph.add_node("tools", ToolNode([query, remember], handle_tool_errors=(psycopg.Error,)))
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", tools_condition)
    graph.add_edge("tools", "answer")
    return graph


def create_app(model: BaseChatModel) -> FastAPI:
    container, graph, app = App(), make_graph(model), FastAPI()
    install(app, container, values=request_identity, errors=answer_error)

    @app.post("/chats/{chat}")
    async def chat(
        chat: str, question: Annotated[str, Body()], ctx: Annotated[RequestContext, CurrentRequest]
    ) -> StreamingResponse:
        pool = container.pools().for_user(ctx["identity"])
        caller = Caller(ctx["identity"], pool)
        # A saver has a lock, and a store a task of its own: both are made for each run, which costs no I/O.
        agent = graph.compile(checkpointer=AsyncPostgresSaver(pool), store=AsyncPostgresStore(pool))

        async def events() -> AsyncIterator[str]:
            async for part, _ in agent.astream(
                MessagesState(messages=[HumanMessage(question)]),
                {"configurable": {"thread_id": f"{caller.label}.{chat}"}},
                context=caller,
                stream_mode="messages",
            ):
                if isinstance(part, AIMessageChunk) and part.text:
                    yield f"data: {json.dumps(part.text)}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def set_up() -> None:
    """Make LangGraph's tables, and let each user see their own rows in them."""
    with (
        create_lakebase_pool(connection_class=Connection[DictRow], kwargs=CONNECTIONS) as pool,
        pool.connection() as connection,
    ):
        PostgresSaver(connection).setup()
        PostgresStore(connection).setup()
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "store"):
            column = "prefix" if table == "store" else "thread_id"
            connection.execute(OWN_ROWS.format(table=table, column=column).encode(), prepare=False)


if __name__ == "__main__":
    set_up()
