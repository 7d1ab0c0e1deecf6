"""`ExecutorPool` on a real Spark cluster: processes, connections, transactions, and tasks that fail or are killed."""

from __future__ import annotations

import itertools

import pytest

from lakebase.spark import ExecutorPool
from pooling import SharedBudget
from pooling.leases import RedisLeases

pytest.importorskip("pyspark", reason="PySpark comes with the extra `spark`; `nox -s spark` has it")

from tests.clusters.spark_jobs import (
    MOST_SESSIONS_AT_ONCE,
    TABLE,
    square_in_arrow,
    square_in_pandas,
    write,
    write_and_fail_once,
)

# Spark's connection to Java is left to the garbage collector.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROLE, PASSWORD = "spark_role", "spark-pw"
WORKERS = 4  # of both executors
PATIENCE = 300.0
BY_ATTEMPT = "select attempt, count(*) from written group by attempt order by attempt"
jobs = itertools.count(1)


@pytest.fixture
def job(lakebase_local):
    """Settings of a job's pool; its table is empty."""
    lakebase_local.add_password_role(ROLE, PASSWORD)
    with ExecutorPool(lakebase_local.config(), timeout=PATIENCE).get_pool() as owner, owner.connection() as conn:
        conn.execute("drop table if exists written")
        conn.execute(TABLE)
        conn.execute(f"grant all on written to {ROLE}")
    config = lakebase_local.config(ROLE, password=PASSWORD)
    return {"config": config, "max_idle": PATIENCE, "timeout": PATIENCE}


@pytest.fixture
def shared(redis):
    """Make budgets that a new book of leases keeps."""

    def shared(limit: int, **options) -> SharedBudget:
        name = f"job-{next(jobs)}"
        redis.clear(name)
        return SharedBudget(limit, RedisLeases(redis.url), name=name, **options)

    return shared


def query(pool, sql):
    with pool.connection() as conn:
        return conn.execute(sql).fetchall()


def test_a_worker_has_one_pool_and_logs_in_once_for_all_its_tasks_also_of_later_jobs(spark, job):
    pool = ExecutorPool(**job)
    for half in (0, 100):
        rows = spark.range(half, half + 100, 1, 20)
        rows.foreachPartition(pool.for_each_batch(write(pool), batch_size=2))
    counted = "count(*), count(distinct process), count(distinct (process, pool)), count(distinct session)"
    ((rows, processes, pools, sessions),) = query(pool, f"select {counted} from written")
    assert rows == 200
    assert processes == pools == sessions
    assert 2 <= processes <= 2 * WORKERS  # a task may begin before the last one has left its worker
    pool.close()


def test_workers_and_the_driver_never_have_more_connections_than_the_limit(spark, job, shared):
    pool = ExecutorPool(**job, budget=shared(3))
    with pool.connection() as conn:  # of the driver, as long as the job runs
        rows = spark.range(0, 400, 1, 40)
        rows.foreachPartition(pool.for_each_batch(write(pool), batch_size=5))
        written, processes = conn.execute("select count(*), count(distinct process) from written").fetchone()
        # Not what the server counts at an instant: it may be late to notice the end of a session.
        (most,) = conn.execute(MOST_SESSIONS_AT_ONCE).fetchone()
    assert written == 400
    assert processes > 2
    assert 1 <= most <= 2
    pool.close()


def test_what_a_failed_attempt_has_committed_stays_and_the_next_one_writes_the_rest(spark, job):
    pool = ExecutorPool(**job)
    rows = spark.range(0, 40, 1, 4)
    rows.foreachPartition(pool.for_each_batch(write_and_fail_once(pool, killed=False), batch_size=5))
    assert query(pool, BY_ATTEMPT) == [(0, 20), (1, 20)]
    pool.close()


def test_a_killed_worker_gives_its_place_back_and_its_batch_is_rolled_back(spark, job, shared):
    pool = ExecutorPool(**job, budget=shared(1, lease_ttl=2))
    rows = spark.range(0, 20, 1, 2)
    rows.foreachPartition(pool.for_each_batch(write_and_fail_once(pool, killed=True), batch_size=5))
    assert query(pool, BY_ATTEMPT) == [(0, 10), (1, 10)]
    both = "select count(distinct process) from written where number in (0, 5)"
    assert query(pool, both) == [(2,)]
    pool.close()


@pytest.mark.parametrize("method", ["mapInPandas", "mapInArrow"])
def test_a_frame_is_computed_with_what_the_server_says(spark, job, shared, method):
    pool = ExecutorPool(**job, budget=shared(2))
    function = square_in_pandas if method == "mapInPandas" else square_in_arrow
    frame = getattr(spark.range(0, 300, 1, 6), method)(pool.map_batches(function), "id bigint, square bigint")
    assert {row.id: row.square for row in frame.collect()} == {number: number**2 for number in range(300)}


def test_an_error_of_the_database_is_the_jobs_and_shows_no_password(spark, job):
    pool = ExecutorPool(**job)

    def write(conn, rows):
        conn.execute("select * from missing")

    with pytest.raises(Exception, match='relation "missing" does not exist') as caught:
        spark.range(1).foreachPartition(pool.for_each_batch(write))
    assert PASSWORD not in str(caught.value)
