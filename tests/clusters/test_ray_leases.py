"""`RayLeases` on a real cluster: the same promises as other stores', and the actor restarted, replaced and hanging."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from pooling import AsyncPoolingService, ConfigurationError, PoolingService, PoolTimeoutError, SharedBudget
from pooling.leases import RayLeases
from tests.leases.servers import until
from tests.leases.test_faults import (
    test_a_process_that_was_stopped_for_longer_opens_nothing_and_closes_what_others_have as test_stopped_process,
)
from tests.leases.test_shared_budget import test_two_budgets_on_one_store_have_one_limit as test_one_limit
from tests.platform.programs import run

ray = pytest.importorskip("ray", reason="Ray comes with the extra `ray`; `nox -s clusters` has it")

# Ray's own processes leave files and children to the garbage collector.
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

__all__ = ["test_one_limit", "test_stopped_process"]  # the same for all stores

ACTOR = "leases"  # one for all tests: Ray takes seconds to start a process
LIMIT = 4
PATIENCE = 120.0  # seconds for Ray to start one


@pytest.fixture
def store(ray_cluster) -> RayLeases:
    return RayLeases(ACTOR)


@pytest.fixture
def remote(ray_cluster):
    """The store as `tests.leases.worker` takes it; its actor has been started."""
    budget = SharedBudget(1, RayLeases(ACTOR), name="begin")
    with PoolingService(object, budget=budget, timeout=PATIENCE) as pool, pool.lease():
        pass
    return {"ray": ray_cluster, "name": ACTOR}, None, None


@pytest.fixture
def pools(store, name):
    """Make pools, each under a budget of its own as in a process of its own."""
    made = []

    def make(**options) -> PoolingService[object]:
        budget = SharedBudget(LIMIT, store, name=name, **options)
        pool = PoolingService(object, max_size=9, budget=budget, timeout=PATIENCE)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.stop(0)


def fill(pool: PoolingService[object], count: int) -> list[object]:
    return [pool.acquire() for _ in range(count)]


def test_processes_that_need_the_first_place_at_once_find_the_same_actor(ray_cluster, name):
    store = RayLeases(name)
    budgets = [SharedBudget(LIMIT, store) for _ in range(3)]
    pools = [PoolingService(object, max_size=9, budget=budget, timeout=PATIENCE) for budget in budgets]
    threads = [threading.Thread(target=fill, args=(pool, 1)) for pool in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    held = fill(pools[0], 1)
    with pytest.raises(PoolTimeoutError, match="of max_total=4 of all processes this one has 1, others up to 3"):
        pools[1].acquire(timeout=0.3)
    assert [budget.used for budget in budgets] == [2, 1, 1]
    pools[0].release(held.pop())
    for pool in pools:
        pool.stop(0)
    ray.kill(ray.get_actor(name, namespace=store.namespace))


def test_a_process_that_waits_is_given_the_place_of_an_idle_resource_as_it_rings(pools):
    one, other = (pools(lease_ttl=3600, idle_after=0.0) for _ in range(2))
    for value in fill(one, LIMIT):
        one.release(value)
    with other.lease():  # without the bell, `one` would look again after 20 minutes
        assert one.available == LIMIT - 1


def test_pools_of_an_async_actor_wait_for_the_store_without_blocking_its_loop(store, name):
    @ray.remote(num_cpus=0)
    class Replica:
        def __init__(self, budget):
            self.pool = AsyncPoolingService(object, max_size=9, budget=budget, timeout=PATIENCE)

        async def use(self, users):
            """Borrow at once for so many users; the size of the pool, and how often the loop came round meanwhile."""

            async def use_one():
                async with self.pool.lease():
                    await asyncio.sleep(0)

            tasks = asyncio.gather(*(use_one() for _ in range(users)))
            turns = 0
            while not tasks.done():
                turns += 1
                await asyncio.sleep(0)
            await tasks
            return self.pool.size, turns

    # The budget itself travels: there it is the same limit.
    replica = Replica.remote(SharedBudget(LIMIT, store, name=name))
    size, turns = ray.get(replica.use.remote(12), timeout=PATIENCE)
    assert 1 <= size <= LIMIT
    assert turns > 100, "the loop stood still while the actor of the leases was asked"
    ray.kill(replica)


def test_a_process_keeps_what_it_has_while_the_actor_hangs_until_its_lease_ends(pools, store):
    pool = pools(lease_ttl=4.0)
    for value in fill(pool, 3):
        pool.release(value)
    actor = ray.get_actor(store.name, namespace=store.namespace)
    pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=PATIENCE)
    os.kill(pid, signal.SIGSTOP)
    try:
        pool.release(pool.acquire(timeout=0.5))
        until(lambda: pool.size == 0, "idle resources are kept though others may have the places")
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0.1)
    finally:
        os.kill(pid, signal.SIGCONT)
    pool.release(pool.acquire())


def test_an_actor_that_has_lost_the_book_gives_nobodys_places_away(pools, store):
    one, other = (pools(lease_ttl=3600) for _ in range(2))
    held = fill(one, LIMIT)
    for is_for_good in (False, True):  # first Ray starts it anew, then the processes do
        ray.kill(ray.get_actor(store.name, namespace=store.namespace), no_restart=is_for_good)
        wait_for_refusal(other, "has just been started, without data")
        assert one.stats().borrowed == one.stats().size == LIMIT  # what it has it keeps
    for value in held:
        one.release(value)


def wait_for_refusal(pool: PoolingService[object], words: str) -> None:
    """Return once the pool is refused a resource for this reason; fail if it gets one."""
    ends_at, said = time.monotonic() + PATIENCE, ""
    while words not in said:
        assert time.monotonic() < ends_at, said
        with pytest.raises(PoolTimeoutError) as caught:
            pool.acquire(timeout=0.3)
        said = str(caught.value)


def test_a_budget_and_its_store_can_be_sent_to_another_process():
    budget = SharedBudget(7, RayLeases("a", namespace="b"), name="c", lease_ttl=9, block=2, idle_after=3)
    budget.resize(6)
    again = pickle.loads(pickle.dumps(budget))
    assert repr(again) == repr(budget) == "<SharedBudget 'c': 0 used here, 0 leased, of 6>"
    assert pickle.dumps(again) == pickle.dumps(budget)


def test_without_a_connection_the_error_says_what_to_call_and_no_cluster_is_started():
    outcome = run(
        """
        import pooling, sys
        from pooling.leases import RayLeases
        budget = pooling.SharedBudget(3, RayLeases())
        pool = pooling.PoolingService(object, budget=budget)
        try:
            pool.acquire(timeout=0.2)
        except pooling.PoolTimeoutError as error:
            print(error)
        print(type(budget.store_error).__name__, "ray" in sys.modules)
        pool.stop()
        """,
        dev=False,
    )
    assert outcome.status == 0
    assert "call ray.init(), or ray.init(address=...)" in outcome.out
    assert outcome.out.splitlines()[-1] == "ConfigurationError False"


def test_a_process_forked_from_a_connected_one_says_that_ray_does_not_work_there(ray_cluster, store):
    pool = PoolingService(object, budget=SharedBudget(3, store))
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        pid = os.fork()
    if pid == 0:
        try:
            pool.acquire(timeout=0.2)
        except PoolTimeoutError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as words:
        assert "was forked from one that is connected to Ray" in words.read()
    os.waitpid(pid, 0)


def test_empty_names_are_refused():
    for wrong in ({"name": ""}, {"namespace": ""}, {"name": 3}):
        with pytest.raises(ConfigurationError, match="expected a text"):
            RayLeases(**wrong)


def test_a_driver_that_disconnects_with_places_starts_no_cluster_and_ends_quietly(ray_cluster, name):
    source = f"""
import ray, pooling, time
from pooling.leases import RayLeases
ray.init(address={ray_cluster!r}, logging_level="ERROR", log_to_driver=False)
budget = pooling.SharedBudget(3, RayLeases({ACTOR!r}), name={name!r}, lease_ttl=3)
pool = pooling.PoolingService(object, budget=budget, timeout={PATIENCE})
held = pool.acquire()
ray.shutdown()
while not isinstance(budget.store_error, pooling.ConfigurationError):
    time.sleep(0.01)
print(ray.is_initialized(), pool.size, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "False 1\n")
    (warning,) = done.stderr.splitlines()  # of the pool's log
    assert "call ray.init(), or ray.init(address=...)" in warning
