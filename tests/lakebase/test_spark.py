"""`ExecutorPool` without Spark: what travels, one pool in each process, and a transaction for each batch."""

from __future__ import annotations

import os
import pickle
import threading

import psycopg
import pytest

from lakebase import ConfigurationError, LakebasePoolConfig
from lakebase.spark import ExecutorPool
from pooling import PoolBudget, SharedBudget
from pooling.leases import FileLeases
from tests.platform.programs import run

ROLE, PASSWORD = "sparks", "sp4rk-pw"
ADDRESS = {"host": "db.example", "database": "app", "user": ROLE, "password": PASSWORD}
PID = "select pg_backend_pid()"


@pytest.fixture
def numbers(admin, lakebase_local):
    """A pool of a role that may write into the table `numbers`."""
    lakebase_local.add_password_role(ROLE, PASSWORD)
    admin.execute(f"create table numbers (number int primary key); grant all on numbers to {ROLE}")
    pool = ExecutorPool(lakebase_local.config(ROLE, password=PASSWORD), max_size=1, timeout=30)
    yield pool
    pool.close()
    admin.execute("drop table numbers")


@pytest.fixture
def make(no_ambient_settings):
    """Make pools that connect to nothing, and close them at the end."""
    made = []

    def make(*arguments, **options) -> ExecutorPool:
        made.append(ExecutorPool(*arguments, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def insert(conn, rows):
    conn.cursor().executemany("insert into numbers values (%s)", [(row,) for row in rows])


def stored(admin):
    return [number for (number,) in admin.execute("select number from numbers order by 1")]


def shifted(conn, batch):
    (pid,) = conn.execute(PID).fetchone()
    return pid, [number + 1 for number in batch]


def test_all_copies_in_a_process_have_one_pool(make):
    pool = make(ADDRESS)
    copies = [pickle.loads(pickle.dumps(pool)) for _ in range(2)]
    assert {id(each.get_pool()) for each in [*copies, pickle.loads(pickle.dumps(copies[0]))]} == {id(pool.get_pool())}
    assert make(ADDRESS).get_pool() is not pool.get_pool()


def test_threads_that_ask_at_once_get_the_same_pool(make):
    pool, found, gate = make(ADDRESS), [], threading.Barrier(8)

    def ask():
        gate.wait(30)
        found.append(pool.get_pool())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert set(found) == {pool.get_pool()}


def test_each_batch_is_committed_and_an_error_rolls_back_its_own_alone(numbers, admin):
    write = pickle.loads(pickle.dumps(numbers.for_each_batch(insert, batch_size=2)))
    with pytest.raises(psycopg.errors.UniqueViolation):
        write(iter([1, 2, 3, 4, 5, 5, 7]))
    assert stored(admin) == [1, 2, 3, 4]


def test_no_batch_is_larger_than_wanted_and_all_have_the_same_connection(numbers):
    seen = []
    numbers.for_each_batch(lambda conn, rows: seen.append((conn.info.backend_pid, rows)), batch_size=3)(range(7))
    assert [rows for _, rows in seen] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len({pid for pid, _ in seen}) == 1


def test_a_partition_without_rows_connects_to_nothing(make):
    pool = make({**ADDRESS, "host": "nowhere.invalid"})
    pool.for_each_batch(insert)(iter([]))
    assert list(pool.map_batches(shifted)(iter([]))) == []
    assert pool.get_pool().get_stats()["pool_size"] == 0


def test_the_connection_is_given_back_while_the_next_rows_are_fetched(numbers, admin):
    def rows():
        for number in range(4):
            with numbers.connection(timeout=5) as conn:  # of max_size=1
                (count,) = conn.execute("select count(*) from numbers").fetchone()
            yield 10 * number + count

    numbers.for_each_batch(insert, batch_size=1)(rows())
    assert stored(admin) == [0, 11, 22, 33]


def test_the_connection_is_given_back_before_a_result_is_taken(numbers):
    seen = []
    for pid, batch in pickle.loads(pickle.dumps(numbers.map_batches(shifted)))([[1, 2], [3]]):
        with numbers.connection(timeout=5) as conn:
            assert conn.execute(PID).fetchone() == (pid,)
        seen.append(batch)
    assert seen == [[2, 3], [4]]


def test_a_forked_worker_has_one_pool_of_its_own_also_while_a_thread_was_making_one(lakebase_local):
    lakebase_local.add_password_role(ROLE, PASSWORD)
    config = lakebase_local.config(ROLE, password=PASSWORD)
    outcome = run(
        f"""
        import os, pickle, threading, warnings
        import lakebase.spark
        from lakebase import LakebasePoolConfig
        from lakebase.spark import ExecutorPool

        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

        def pid(pool):
            with pool.connection() as conn:
                return conn.info.backend_pid

        config = LakebasePoolConfig(**{config.given()!r} | {{"password": {PASSWORD!r}}})
        pool = ExecutorPool(config)
        mine = pid(pool)
        task = pickle.dumps(pool)
        taken, done = threading.Event(), threading.Event()

        def make_a_pool():
            with lakebase.spark._lock:
                taken.set()
                done.wait(60)

        thread = threading.Thread(target=make_a_pool)
        thread.start()
        taken.wait(60)
        child = os.fork()
        if child == 0:
            theirs = {{pid(pickle.loads(task)) for _ in range(3)}}
            assert len(theirs) == 1 and mine not in theirs, (mine, theirs)
            os._exit(7)  # as Spark ends its workers
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        done.set()
        thread.join()
        assert pid(pool) == mine
        """,
        dev=False,
    )
    assert (outcome.status, outcome.err) == (0, "")


def test_a_closed_pool_is_replaced_by_the_next_use(make):
    pool = make(ADDRESS)
    first = pool.get_pool()
    pool.close()
    assert first.closed
    assert not pool.get_pool().closed


def test_tasks_wait_longer_and_idle_connections_go_sooner_unless_told_otherwise(make):
    found = [(each.get_pool().timeout, each.get_pool().max_idle) for each in (make(ADDRESS), make(ADDRESS, timeout=7))]
    assert found == [(300, 30), (7, 30)]
    assert make(LakebasePoolConfig(**ADDRESS, max_idle=90)).get_pool().max_idle == 90


def test_what_is_missing_comes_from_the_environment_of_the_process_that_connects(make, monkeypatch):
    pool = make()
    with pytest.raises(ConfigurationError, match="host is missing"):
        pool.get_pool()
    settings = {"PGHOST": "db.example", "PGDATABASE": "app", "PGUSER": "x"}
    endpoint = {"LAKEBASE_ENDPOINT": "projects/p/branches/b/endpoints/e", "LAKEBASE_WARM_UP": "0"}
    for name, value in {**settings, **endpoint}.items():
        monkeypatch.setenv(name, value)
    assert pool.get_pool().host == "db.example"
    assert b"db.example" not in pickle.dumps(pool)


def test_the_identity_of_the_driver_travels_as_a_password(lakebase_local, no_ambient_settings, monkeypatch):
    with monkeypatch.context() as driver:
        for name, value in lakebase_local.environment().items():
            driver.setenv(name, value)
        for name in ("PGHOST", "PGUSER"):  # which the workspace knows
            driver.delenv(name, raising=False)
        pool = ExecutorPool.as_driver(name="notebook", timeout=30)
        role = os.environ["DATABRICKS_CLIENT_ID"]
    assert "notebook" in repr(pool)
    task = pickle.dumps(pool)
    assert not [name for name in os.environ if name.startswith(("PG", "DATABRICKS_CLIENT"))]
    with pickle.loads(task).connection() as conn:
        assert conn.execute("select current_user").fetchone() == (role,)
    pool.close()


def test_the_shared_budget_travels(make, tmp_path):
    budget = SharedBudget(3, FileLeases(tmp_path), name="job")
    again = pickle.loads(pickle.dumps(make(ADDRESS, budget=budget)))
    assert repr(budget) in repr(again)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"workspace_client": object()}, "set DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"),
        ({"budget": PoolBudget(3)}, "expected a SharedBudget"),
        ({"max_sizes": 3}, "max_size"),
    ],
)
def test_what_cannot_travel_or_is_unknown_is_refused_where_the_pool_is_made(no_ambient_settings, wrong, words):
    with pytest.raises(ConfigurationError, match=words):
        ExecutorPool(**wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None])
def test_a_batch_has_at_least_one_row(make, wrong):
    with pytest.raises(ConfigurationError, match=r"batch_size=.*: expected a whole number, at least 1"):
        make(ADDRESS).for_each_batch(insert, batch_size=wrong)


def test_no_secret_is_shown(make):
    pool = make(ADDRESS)
    for shown in (repr(pool), repr(pool.for_each_batch(insert)), repr(pool.map_batches(shifted))):
        assert "db.example" in shown
        assert PASSWORD not in shown
