"""
The checks of the demo can fail: bugs are planted in its app, and the demo must find each.
"""

import functools
import re
import subprocess
import sys

import pytest
from dependency_injector import providers

from lakebase import AsyncLakebasePoolManager
from lakebase.cli import main
from lakebase.demo.app import App, Notes, Visits, visitor
from pooling.di import Managed, Pooled


class OnePoolForAll(AsyncLakebasePoolManager):
    def for_user(self, identity):
        return super().get_pool("all users", identity.pool_config())


class NoRotation(AsyncLakebasePoolManager):
    def for_user(self, identity):
        return super().get_pool(identity.pool_key(), identity.pool_config())


class WriteNothing(Notes):
    async def add(self, texts):
        """Write nothing, and report no error."""


class Unrecorded(Visits):
    async def record(self):
        """Record nothing."""


def managed(kind):
    return App.user_pools, Managed(kind, App.database, max_total=App.limits.connections, stop="close_all")


def first_user():
    """Every request is served as the user of the first one, as if the user were kept in a global."""
    first = functools.cache(visitor)

    return App.connection, Pooled(App.user_pools, select=lambda pools, request: pools.for_user(first()))


def as_the_app():
    return App.connection, Pooled(App.app_pool)


BUGS = {
    "one pool for all users": (lambda: managed(OnePoolForAll), ["no user saw a row of another"]),
    "the user in a global": (first_user, ["no user saw a row of another", "the database saw each request once"]),
    "the app's own connection": (as_the_app, ["every request was answered as it should be"]),
    "the old token's pool": (lambda: managed(NoRotation), ["one credential was minted", "the next one logged in anew"]),
    "notes that are not written": (
        lambda: (App.notes, providers.Factory(WriteNothing, App.connection)),
        ["what was acknowledged is there", "every request was answered as it should be"],
    ),
    "visits that are not recorded": (
        lambda: (App.visits, providers.Factory(Unrecorded, App.connection, providers.Callable(visitor))),
        ["the database saw each request once"],
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug, capsys):
    plant, claims = BUGS[bug]
    provider, instead = plant()
    with provider.override(instead):
        assert main(["demo", "--quiet", "--requests", "24"]) == 1
    output = capsys.readouterr().out
    failed = re.findall(r"^FAILED  (.*)", output, flags=re.MULTILINE)
    for claim in claims:
        assert any(claim in line for line in failed), f"{claim!r} held:\n{output}"
    assert "The demo FAILED" in output

    if "no user saw a row of another" in claims:
        rows = re.findall(r"^\w+@corp\.example +\d+ +\d+ +(\d+)", output, flags=re.MULTILINE)
        assert sum(int(foreign) > 0 for foreign in rows) == 2, "all but the one whose connections they were"


def test_pools_that_are_never_closed_are_found():
    planted = """
import sys
from lakebase import AsyncLakebasePoolManager
from lakebase.cli import main
from lakebase.demo.app import App
from pooling.di import Managed

App.user_pools.override(Managed(AsyncLakebasePoolManager, App.database, max_total=24, stop=None))
sys.exit(main(["demo", "--quiet", "--users", "1", "--requests", "3"]))
"""
    ended = subprocess.run([sys.executable, "-c", planted], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert re.findall(r"^FAILED  (.*)", ended.stdout, flags=re.MULTILINE) == [
        "no connection was left: some of ann@corp.example are open"
    ]
