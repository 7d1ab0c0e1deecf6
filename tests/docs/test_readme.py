"""README's app: each user is served as themselves, and a request that proves no user is refused."""

from __future__ import annotations

import sys
import types

import httpx
import pytest

from tests.docs.pages import PYTHONS, ROOT, blocks


@pytest.fixture
def app(documented_environment, monkeypatch):
    """The app of README's first block."""
    shown = next(block for block in blocks(ROOT / "README.md") if block.language in PYTHONS)
    module = types.ModuleType("app")
    monkeypatch.setitem(sys.modules, "app", module)
    exec(compile(shown.text, shown.where, "exec"), module.__dict__)
    return module.app


async def test_each_user_is_served_as_themselves(app, documented_environment):
    lake = documented_environment
    made_up = {"X-Forwarded-Email": "ann@corp.example", "X-Forwarded-Access-Token": "made up"}
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
    async with app.router.lifespan_context(app), client:
        for name in ("ann@corp.example", "bob@corp.example"):
            headers = {"X-Forwarded-Email": name, "X-Forwarded-Access-Token": lake.add_user(name)}
            assert (await client.get("/me", headers=headers)).json() == name
        assert (await client.get("/me")).status_code == 401
        assert (await client.get("/me", headers=made_up)).status_code == 401
        pools = app.state.container.pools()
        assert (pools.size, pools.stats().borrowed) == (2, 0)
    assert pools.size == 0
