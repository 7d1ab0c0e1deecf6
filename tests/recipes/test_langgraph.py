"""LangGraph's savers and store on our pools: a compiled graph, two users, a server, and runs that are cut short."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from lakebase import (
    AsyncLakebasePoolManager,
    AsyncRoutingPool,
    LakebasePoolManager,
    RoutingPool,
    UserIdentity,
    create_async_lakebase_pool,
    create_lakebase_pool,
)
from pooling import RequestContext, RequestContextError
from tests.web.servers import Uvicorn

pytest.importorskip("langgraph.graph", reason="LangGraph is of the extra `recipes`")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.postgres import PostgresStore
from langgraph.store.postgres.aio import AsyncPostgresStore

ANN, BOB = "ann@graph.example", "bob@graph.example"


class Model(BaseChatModel):
    """Gives the answers that it was given, in parts; keeps what it was asked."""

    answers: list[Any]
    asked: list[Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Model:
        return self

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(self, messages: Any, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        answer = self.answers.pop(0)
        if isinstance(answer, AIMessage):
            given = [
                tool_call_chunk(name=each["name"], args=json.dumps(each["args"]), id=each["id"], index=0)
                for each in answer.tool_calls
            ]
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=given))
        else:
            for part in answer.partition(" "):
                yield ChatGenerationChunk(message=AIMessageChunk(content=part))


def says(*answers: AIMessage | str) -> Model:
    return Model(answers=list(answers), asked=[])


def calls(tool: str, **arguments: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call-{tool}"}])


@pytest.fixture
def recipe(load_recipe, documented_environment, as_owner) -> Any:
    """The example, after the owner has run it as a program and users have come."""
    lake = documented_environment
    for user in (ANN, BOB):
        lake.add_user(user)
    module = load_recipe("langgraph_chat.py")
    with as_owner():
        module.set_up()
    return module


@pytest.fixture
def headers(documented_environment) -> dict[str, dict[str, str]]:
    lake = documented_environment
    return {user: {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": lake.token(user)} for user in (ANN, BOB)}


def post(server: Uvicorn, headers: dict[str, str], question: str, chat: str = "one") -> str:
    """What the model says, put together from the stream."""
    url = f"http://127.0.0.1:{server.port}/chats/{chat}"
    with httpx.stream("POST", url, headers=headers, json=question, timeout=60) as answer:
        answer.raise_for_status()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    return "".join(map(json.loads, lines))


def test_each_user_talks_in_their_own_threads(recipe, headers):
    model = says("hello Ann", "hello Bob", calls("query", sql="select current_user"), "you are Ann")
    with Uvicorn(recipe.create_app(model)) as server:
        assert post(server, headers[ANN], "I am Ann") == "hello Ann"
        assert post(server, headers[BOB], "I am Bob") == "hello Bob"  # in a chat of the same name
        assert post(server, headers[ANN], "who am I?") == "you are Ann"
    texts = [[message.content for message in asked[1:]] for asked in model.asked]
    assert texts[:3] == [["I am Ann"], ["I am Bob"], ["I am Ann", "hello Ann", "who am I?"]]
    assert json.loads(texts[3][-1])["rows"] == [[ANN]]  # what the tool has seen


def test_what_is_remembered_is_the_users_own(recipe, headers):
    model = says(
        calls("remember", fact="likes tea"), "noted", "hm", "tea?", calls("query", sql="drop table store"), "no"
    )
    with Uvicorn(recipe.create_app(model)) as server:
        post(server, headers[ANN], "I like tea", "two")
        post(server, headers[BOB], "what do I like?", "two")
        post(server, headers[ANN], "what do I like?", "three")
        assert post(server, headers[ANN], "drop everything", "four") == "no"
    told = [asked[0].content for asked in model.asked]
    assert ["likes tea" in each for each in told] == [False, True, False, True, True, True]
    assert "syntax error" in model.asked[-1][-1].content  # the model is told why


def test_the_database_keeps_users_apart(recipe, headers, documented_environment):
    lake = documented_environment
    with Uvicorn(recipe.create_app(says("a secret"))) as server:
        post(server, headers[ANN], "tell me", "five")
    with LakebasePoolManager(lake.config(), kwargs=recipe.CONNECTIONS) as manager:
        anns = manager.for_user(UserIdentity(ANN, lake.token(ANN)))
        bobs = manager.for_user(UserIdentity(BOB, lake.token(BOB)))
        thread: Any = {"configurable": {"thread_id": f"{ANN.encode().hex()}.five"}}
        assert PostgresSaver(anns).get_tuple(thread) is not None
        assert PostgresSaver(bobs).get_tuple(thread) is None
        graph = StateGraph(MessagesState)
        graph.add_node("reply", lambda state: {"messages": [AIMessage("mine now")]})
        graph.add_edge(START, "reply")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            graph.compile(checkpointer=PostgresSaver(bobs)).invoke({"messages": []}, thread)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            PostgresStore(bobs).put((ANN.encode().hex(), "facts"), "k", {"fact": "a lie"})


class Talk:
    """A graph of two steps; the second one waits in the middle of its words."""

    def __init__(self) -> None:
        self.speaking, self.go_on = asyncio.Event(), asyncio.Event()
        graph = StateGraph(MessagesState)
        graph.add_node("look_up", lambda state: {"messages": [AIMessage("found")]})
        graph.add_node("speak", self.speak)
        graph.add_edge(START, "look_up")
        graph.add_edge("look_up", "speak")
        graph.add_edge("speak", END)
        self.graph = graph

    async def speak(self, state: MessagesState) -> dict[str, Any]:
        self.speaking.set()
        await self.go_on.wait()
        return {"messages": [AIMessage("said")]}


@pytest.fixture
async def anns(recipe, documented_environment) -> AsyncIterator[Any]:
    lake = documented_environment
    async with AsyncLakebasePoolManager(lake.config(), kwargs=recipe.CONNECTIONS) as manager:
        yield manager.for_user(UserIdentity(ANN, lake.token(ANN)))


async def run(agent: Any, given: Any, config: Any) -> list[Any]:
    return [part async for part in agent.astream(given, config, stream_mode="updates")]


async def test_a_run_that_is_cancelled_goes_on_where_it_was(anns):
    talk, config = Talk(), {"configurable": {"thread_id": f"{ANN.encode().hex()}.cancelled"}}
    agent = talk.graph.compile(checkpointer=AsyncPostgresSaver(anns))
    task = asyncio.create_task(run(agent, {"messages": [("user", "hello")]}, config))
    await talk.speaking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert anns.service.borrowed == 0
    async with anns.connection() as connection:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    state = await agent.aget_state(config)
    assert ([message.content for message in state.values["messages"]], state.next) == (["hello", "found"], ("speak",))

    talk.go_on.set()
    assert [list(part) for part in await run(agent, None, config)] == [["speak"]]
    assert [message.content for message in (await agent.aget_state(config)).values["messages"]][-1] == "said"


async def test_no_connection_is_held_while_the_model_speaks(anns):
    talk, config = Talk(), {"configurable": {"thread_id": f"{ANN.encode().hex()}.held"}}
    agent = talk.graph.compile(checkpointer=AsyncPostgresSaver(anns))
    task = asyncio.create_task(run(agent, {"messages": []}, config))
    await talk.speaking.wait()
    async with asyncio.timeout(30):
        while anns.service.borrowed:  # the step before is saved meanwhile
            await asyncio.sleep(0)
    talk.go_on.set()
    await task


async def test_one_saver_on_a_routing_pool_serves_every_user(recipe, documented_environment):
    lake = documented_environment
    users = AsyncLakebasePoolManager(lake.config(), kwargs=recipe.CONNECTIONS)
    async with users, create_async_lakebase_pool(kwargs=recipe.CONNECTIONS) as app_pool:
        talk = Talk()
        talk.go_on.set()
        agent = talk.graph.compile(checkpointer=AsyncPostgresSaver(AsyncRoutingPool(app_pool, users.for_user)))

        async def request(user: str) -> None:
            config: Any = {"configurable": {"thread_id": f"{user.encode().hex()}.routed"}}
            async with RequestContext(identity=UserIdentity(user, lake.token(user))):
                await run(agent, {"messages": []}, config)

        await asyncio.gather(request(ANN), request(BOB))
        assert set(users.keys()) == {ANN, BOB}


async def test_a_store_must_not_be_kept_on_a_routing_pool(recipe, documented_environment):
    """It works in a task that has the request in which it was made: the recipe makes one for each run."""
    lake = documented_environment
    users = AsyncLakebasePoolManager(lake.config(), kwargs=recipe.CONNECTIONS)
    async with users, create_async_lakebase_pool(kwargs=recipe.CONNECTIONS) as app_pool:
        routing = AsyncRoutingPool(app_pool, users.for_user)
        async with RequestContext(identity=UserIdentity(ANN, lake.token(ANN))):
            store = AsyncPostgresStore(routing)
            await store.aput((ANN.encode().hex(), "facts"), "k", {"fact": "hers"})
        async with RequestContext(identity=UserIdentity(BOB, lake.token(BOB))):
            with pytest.raises(RequestContextError, match="has ended"):
                await store.aget((ANN.encode().hex(), "facts"), "k")


def test_the_threads_of_a_blocking_run_have_its_user(recipe, documented_environment):
    lake = documented_environment
    graph = StateGraph(MessagesState)
    graph.add_node("reply", lambda state: {"messages": [AIMessage("yes")]})
    graph.add_edge(START, "reply")
    with (
        LakebasePoolManager(lake.config(), kwargs=recipe.CONNECTIONS) as users,
        create_lakebase_pool(kwargs=recipe.CONNECTIONS) as app_pool,
    ):
        routing = RoutingPool(app_pool, users.for_user)
        agent = graph.compile(checkpointer=PostgresSaver(routing), store=PostgresStore(routing))
        with RequestContext(identity=UserIdentity(ANN, lake.token(ANN))):
            config: Any = {"configurable": {"thread_id": f"{ANN.encode().hex()}.blocking"}}
            agent.invoke({"messages": []}, config)
            assert len(agent.get_state(config).values["messages"]) == 1
        assert app_pool.service.size == 0
