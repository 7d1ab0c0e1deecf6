"""Cells of a notebook that write a frame into a Lakebase; `spark-submit spark_notebook.py` runs them, too."""

from typing import Any

from psycopg import Connection
from pyspark.sql import Row, SparkSession

from lakebase.spark import ExecutorPool

spark = SparkSession.builder.getOrCreate()  # a notebook has it already
pool = ExecutorPool.as_driver()  # what the environment does not say: endpoint="projects/…/branches/…", …

with pool.connection() as conn:
    conn.execute("create table if not exists totals (id bigint primary key, total float8 not null)")


def write(conn: Connection[Any], rows: list[Row]) -> None:
    sql = "insert into totals values (%s, %s) on conflict (id) do update set total = excluded.total"
    conn.cursor().executemany(sql, [(row.id, row.total) for row in rows])


frame = spark.range(10_000).selectExpr("id", "id / 2 as total")
frame.foreachPartition(pool.for_each_batch(write))

with pool.connection() as conn:
    print(conn.execute("select count(*) from totals").fetchone())
