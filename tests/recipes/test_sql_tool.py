"""The MCP server, with the SDK's own client over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.web.servers import Uvicorn

mcp = pytest.importorskip("mcp", reason="the MCP SDK is of the extra `recipes`")

USERS = "ann@mcp.example", "bob@mcp.example"


async def ask(server: Uvicorn, headers: dict[str, str], sql: str) -> Any:
    from mcp.client.streamable_http import streamable_http_client

    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(f"http://127.0.0.1:{server.port}/mcp", http_client=http)
        async with mcp.Client(transport) as client:
            return await client.call_tool("query", {"sql": sql})


async def test_each_caller_asks_as_themselves(load_recipe, documented_environment):
    lake = documented_environment
    headers = {}
    for user in USERS:
        lake.add_user(user)
        headers[user] = {"X-Forwarded-Email": user, "X-Forwarded-Access-Token": lake.token(user)}
    with Uvicorn(load_recipe("sql_tool.py").app) as server:
        for user in USERS:
            answer = await ask(server, headers[user], "select current_user")
            assert json.loads(answer.content[0].text)["rows"] == [[user]]
        refused = await ask(server, headers[USERS[0]], "drop table orders")
        assert refused.is_error
        assert "syntax error" in refused.content[0].text
        unknown = await ask(server, {}, "select current_user")
        assert unknown.is_error
        assert "X-Forwarded-Email" in unknown.content[0].text
