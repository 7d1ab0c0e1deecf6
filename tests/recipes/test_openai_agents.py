"""The OpenAI Agents SDK with a session and tools on our pools; the model is the SDK's own scripted one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from lakebase import AsyncLakebasePoolManager, UserIdentity
from tests.web.servers import Uvicorn

pytest.importorskip("agents", reason="the OpenAI Agents SDK is of the extra `recipes`")

import agents
from agents.testing import ScriptedModel, assistant_message, function_call

ANN, BOB = "ann@openai.example", "bob@openai.example"


class Gate(ScriptedModel):
    """Waits in the middle of its first answer until it may go on."""

    def __init__(self, *steps: Any) -> None:
        super().__init__(steps)
        self.speaking, self.go_on = asyncio.Event(), asyncio.Event()

    async def stream_response(self, *arguments: Any, **keywords: Any) -> AsyncIterator[Any]:
        async for event in super().stream_response(*arguments, **keywords):
            if event.type == "response.output_text.delta":
                self.speaking.set()
                await self.go_on.wait()
            yield event


@pytest.fixture(autouse=True)
def traces() -> Iterator[None]:
    agents.set_tracing_disabled(True)  # it would send them
    yield
    agents.set_tracing_disabled(False)


@pytest.fixture
def owner(documented_environment) -> Iterator[psycopg.Connection]:
    lake = documented_environment
    admin = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}
    with psycopg.connect(**admin) as connection:
        yield connection


@pytest.fixture
def recipe(load_recipe, documented_environment, as_owner, owner) -> Iterator[Any]:
    lake = documented_environment
    for user in (ANN, BOB):
        lake.add_user(user)
    module = load_recipe("openai_agents.py")
    with as_owner():
        module.set_up()
    yield module
    owner.execute("drop table agent_items, orders")


def post(server: Uvicorn, user: str, token: str, question: str) -> str:
    url = f"http://127.0.0.1:{server.port}/chats/one"
    headers = {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": token}
    with httpx.stream("POST", url, headers=headers, json=question, timeout=60) as answer:
        answer.raise_for_status()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    return "".join(map(json.loads, lines))


def test_each_user_has_their_own_conversation_and_tools(recipe, documented_environment, owner):
    lake = documented_environment
    model = ScriptedModel(
        [
            [assistant_message("hello Ann")],
            [assistant_message("hello Bob")],
            [
                function_call("order", {"item": "tea"}, call_id="1"),
                function_call("order", {"item": "milk"}, call_id="2"),  # at the same time
                function_call("order", {"item": None}, call_id="3"),
            ],
            [function_call("query", {"sql": "select current_user, item from orders order by item"}, call_id="4")],
            [assistant_message("done")],
        ]
    )
    with Uvicorn(recipe.create_app(agents.Agent("assistant", model=model, tools=recipe.TOOLS))) as server:
        assert post(server, ANN, lake.token(ANN), "I am Ann") == "hello Ann"
        assert post(server, BOB, lake.token(BOB), "I am Bob") == "hello Bob"
        assert post(server, ANN, lake.token(ANN), "tea and milk") == "done"
    asked = [[item.get("content") for item in call.input if "role" in item] for call in model.calls]
    assert asked[1] == ["I am Bob"]
    assert (asked[2][0], asked[2][-1], len(asked[2])) == ("I am Ann", "tea and milk", 3)
    assert json.loads(model.calls[4].input[-1]["output"])["rows"] == [[ANN, "milk"], [ANN, "tea"]]
    model.assert_complete()
    assert owner.execute("select distinct owner from orders").fetchall() == [(ANN,)]


async def test_a_session_is_the_sdks_and_its_users_own(recipe, documented_environment):
    lake = documented_environment
    async with AsyncLakebasePoolManager(lake.config()) as pools:
        anns, bobs = (
            recipe.PostgresSession("s", pools.for_user(UserIdentity(user, lake.token(user)))) for user in (ANN, BOB)
        )
        assert isinstance(anns, agents.Session)
        items: list[Any] = [{"role": "user", "content": text} for text in ("one", "two", "three")]
        await anns.add_items(items)
        await anns.add_items([])
        assert await anns.get_items() == items
        assert await anns.get_items(2) == items[1:]
        anns.session_settings = agents.SessionSettings(limit=1)
        assert await anns.get_items() == items[2:]
        assert (await bobs.get_items(), await bobs.pop_item()) == ([], None)
        await bobs.clear_session()
        assert await anns.pop_item() == items[2]
        await anns.clear_session()
        assert await anns.get_items(5) == []


async def test_nothing_is_held_while_the_model_speaks_and_nothing_is_lost_when_it_is_cut(
    recipe, documented_environment
):
    lake = documented_environment
    async with AsyncLakebasePoolManager(lake.config()) as pools:
        pool = pools.for_user(UserIdentity(ANN, lake.token(ANN)))
        session = recipe.PostgresSession("cut", pool)
        model = Gate([assistant_message("a long answer")])
        run = agents.Runner.run_streamed(agents.Agent("assistant", model=model), "hello", session=session)

        async def listen() -> None:
            async for _ in run.stream_events():
                pass

        listening = asyncio.create_task(listen())
        await model.speaking.wait()
        assert pools.stats().borrowed == 0
        listening.cancel()
        run.cancel()
        await asyncio.wait([listening])
        assert [item["content"] for item in await session.get_items()] == ["hello"]
        assert pools.stats().borrowed == 0
