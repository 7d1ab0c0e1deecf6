"""MLflow's AgentServer behind uvicorn: its functions get no request, and yet each works as its user."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import psycopg
import pytest

from tests.web.servers import Uvicorn

pytest.importorskip("mlflow.genai.agent_server", reason="MLflow's AgentServer is of the extra `recipes`")

ANN, BOB = "ann@mlflow.example", "bob@mlflow.example"


def test_answers_and_streams_are_each_users_own(load_recipe, as_owner, documented_environment, monkeypatch):
    # One test, since MLflow takes one function of each kind in a process.
    import mlflow

    lake = documented_environment
    headers = {}
    for user in (ANN, BOB):
        lake.add_user(user)
        headers[user] = {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": lake.token(user)}
    recipe = load_recipe("mlflow_server.py")
    mlflow.tracing.disable()  # there is no tracking server
    with as_owner():
        recipe.set_up()
    admin = {**lake.config().connect_kwargs(), "password": lake.mint(lake.admin_user), "autocommit": True}
    waits, go_on = threading.Event(), threading.Event()
    words = recipe.tokens

    async def hesitating(question: str, earlier: list[str]) -> Any:
        async for word in words(question, earlier):
            yield word
            waits.set()
            await asyncio.to_thread(go_on.wait, 60)

    with psycopg.connect(**admin) as owner, Uvicorn(recipe.app) as server:
        url = f"http://127.0.0.1:{server.port}/invocations"

        def body(text: str, **more: Any) -> dict[str, Any]:
            return {"input": [{"role": "user", "content": text}], **more}

        def said(answer: httpx.Response) -> str:
            answer.raise_for_status()
            return answer.json()["output"][0]["content"][0]["text"].strip()

        for user, text, expected in ((ANN, "a", 0), (ANN, "b", 1), (BOB, "c", 0)):
            answer = httpx.post(url, json=body(text), headers=headers[user], timeout=60)
            assert said(answer) == f"You said {text} after {expected} others"
        turns = "select owner, question from turns order by id"
        assert owner.execute(turns).fetchall() == [(ANN, "a"), (ANN, "b"), (BOB, "c")]

        monkeypatch.setattr(recipe, "tokens", hesitating)
        pools = recipe.container.pools()
        with httpx.stream("POST", url, json=body("d", stream=True), headers=headers[BOB], timeout=60) as answer:
            lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line)
            assert json.loads(next(lines))["delta"] == "You "
            assert waits.wait(60)
            assert (pools.stats().borrowed, len(owner.execute(turns).fetchall())) == (0, 3)
            go_on.set()
            assert list(lines)[-1] == "[DONE]"
        assert owner.execute(turns).fetchall()[3:] == [(BOB, "d")]

        refused = httpx.post(url, json=body("e"), timeout=60)
        assert (refused.status_code, "X-Forwarded-Email" in refused.text) == (500, True)
        assert pools.stats().borrowed == 0
        owner.execute("drop table turns")
