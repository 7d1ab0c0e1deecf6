"""asyncpg with a password of the moment."""

from __future__ import annotations

import pytest

pytest.importorskip("asyncpg")


async def test_the_apps_visits_are_counted(load_recipe, capsys):
    recipe = load_recipe("asyncpg_pool.py")
    for _ in range(2):
        await recipe.main()
    first, second = (int(line.removeprefix("visits: ")) for line in capsys.readouterr().out.splitlines())
    assert second == first + 1
