"""The recipe for Ray, as a driver of the cluster, whose nodes have the environment of an app."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import psycopg
import pytest

from lakebase import lakebase_pg_config
from tests.clusters.conftest import APPLICATION
from tests.recipes.conftest import RECIPES
from tests.sessions import Sessions

pytestmark = pytest.mark.timeout(600)

LIMIT = 2


def test_actors_share_a_limit(ray_cluster):
    with Sessions(APPLICATION, LIMIT) as sessions:
        done = subprocess.run(
            [sys.executable, "ray_actors.py"],
            cwd=RECIPES,
            env=os.environ | {"RAY_ADDRESS": ray_cluster},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
    found = re.search(r"^60 rows, (\d+) sessions$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    assert int(found[1]) >= 3  # each actor logs in itself
    assert 1 <= sessions.most <= LIMIT
    with psycopg.connect(**lakebase_pg_config()) as conn:
        assert conn.execute("select count(distinct number), sum(square) from numbers").fetchone() == (60, 70210)
