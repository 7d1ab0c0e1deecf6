"""A local Lakebase and an app's pools under uvloop, the loop that `uvicorn[standard]` brings."""

import subprocess
import sys

import pytest

pytest.importorskip("uvloop", reason="there is no uvloop for this platform")

PROGRAM = """\
import asyncio
import uvloop

uvloop.install()  # for all loops, as an app's settings may do before anything else

from lakebase import AsyncLakebasePoolManager, UserIdentity
from lakebase.local import LocalLakebase

TASKS, USES = 12, 20

async def main(lake):
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    users = [UserIdentity(name, lake.add_user(name)) for name in ("ann@corp.example", "bob@corp.example")]
    async with AsyncLakebasePoolManager(base_config=lake.config(users[0].user), max_size=3) as manager:

        async def use(user):
            for _ in range(USES):
                async with manager.for_user(user).connection() as conn:
                    row = await (await conn.execute("select current_user")).fetchone()
                    assert row == (user.user,)

        async def break_off(user):
            async with manager.for_user(user).connection() as conn:
                querying.set()
                await conn.execute("select pg_sleep(60)")

        await asyncio.gather(*[use(users[number % 2]) for number in range(TASKS)])
        querying = asyncio.Event()
        task = asyncio.create_task(break_off(users[0]))
        await querying.wait()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.gather(*[use(user) for user in users])

with LocalLakebase() as lake:
    asyncio.run(main(lake))
print("done")
"""


def test_a_local_lakebase_and_pools_work_under_uvloop():
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["done"]), ended.stderr
