"""
A Spark job that looks rates up in a Lakebase and writes into it, on its executors: `spark-submit spark_job.py`.

The environment of driver and executors says where the Lakebase is, and as which service principal the job logs in.
`REDIS_URL` in it is the Redis that keeps the limit, such as redis://redis.internal:6379/0.
"""

import os
import sys
from typing import Any

import pandas as pd
from psycopg import Connection
from pyspark.sql import Row, SparkSession

from lakebase.spark import ExecutorPool
from pooling import SharedBudget
from pooling.leases import RedisLeases

# At most 3 connections, of all executors and the driver together.
budget = SharedBudget(3, RedisLeases(os.environ["REDIS_URL"]), name="payments")
pool = ExecutorPool(budget=budget, application_name="payments")


def in_euros(conn: Connection[Any], payments: pd.DataFrame) -> pd.DataFrame:
    rates = dict(conn.execute("select currency, rate from rates").fetchall())
    return pd.DataFrame({"id": payments["id"], "euros": payments["amount"] * payments["currency"].map(rates)})


def write(conn: Connection[Any], rows: list[Row]) -> None:
    """Write a batch. Spark may run a task again: what is there already is replaced."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into payments values (%s, %s) on conflict (id) do update set euros = excluded.euros",
            [(row.id, row.euros) for row in rows],
        )


def main() -> None:
    spark = SparkSession.builder.getOrCreate()
    with pool.connection() as conn:
        conn.execute("create table if not exists rates (currency text primary key, rate float8 not null)")
        conn.execute("create table if not exists payments (id bigint primary key, euros float8 not null)")
        conn.execute("insert into rates values ('CHF', 1.0625), ('SEK', 0.0625) on conflict do nothing")
    payments = spark.range(0, 1000, 1, 20).selectExpr(
        "id", "cast(16 * (id % 10) as double) as amount", "if(id % 2 = 0, 'CHF', 'SEK') as currency"
    )
    euros = payments.mapInPandas(pool.map_batches(in_euros), "id bigint, euros double")
    euros.foreachPartition(pool.for_each_batch(write, batch_size=100))
    with pool.connection() as conn:
        row = conn.execute("select count(*), sum(euros) from payments").fetchone()
    assert row is not None
    sys.stdout.write(f"{row[0]} payments, {row[1]:.2f} EUR\n")
    pool.close()
    spark.stop()


if __name__ == "__main__":
    main()
