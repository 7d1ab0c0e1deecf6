"""What the Spark tests run on the executors, which import it."""

from __future__ import annotations

import os
import signal

from pyspark import TaskContext

TABLE = """
    create table written (
        number int primary key, attempt int, process int, pool bigint,
        session int default pg_backend_pid(), at timestamptz default clock_timestamp(), session_began timestamptz
    )
"""
WRITE = """
    insert into written (number, attempt, process, pool, session_began)
    select %s, %s, %s, %s, backend_start from pg_stat_activity where pid = pg_backend_pid()
    on conflict (number) do nothing
"""
# At each beginning of a session: the sessions that had begun by then, and wrote something at that time or later.
MOST_SESSIONS_AT_ONCE = """
    with sessions as (select session, session_began as began, max(at) as used from written group by 1, 2)
    select max((select count(*) from sessions where began <= each.began and each.began <= used)) from sessions as each
"""


def write(pool):
    """Write each row with the task's attempt, the process, its pool, and the server's session."""

    def write(conn, rows):
        who = TaskContext.get().attemptNumber(), os.getpid(), id(pool.get_pool())
        conn.cursor().executemany(WRITE, [(row.id, *who) for row in rows])

    return write


def write_and_fail_once(pool, *, killed: bool):
    """The same, but the first attempt of each task fails, or is killed, in its second batch, after the statement."""
    plain = write(pool)
    seen = {}

    def write_or_fail(conn, rows):
        task = TaskContext.get()
        plain(conn, rows)
        batches = seen[task.taskAttemptId()] = seen.get(task.taskAttemptId(), 0) + 1
        if task.attemptNumber() == 0 and batches == 2:
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("planted")

    return write_or_fail


def square_in_pandas(conn, frame):
    """The squares of the column `id`, computed by the server."""
    return frame.assign(square=squares(conn, frame["id"].tolist()))


def square_in_arrow(conn, batch):
    """The same for `mapInArrow`."""
    return batch.append_column("square", squares(conn, batch["id"].to_pylist()))


def squares(conn, numbers):
    return [square for (square,) in conn.execute("select n * n from unnest(%s::bigint[]) n", [numbers])]
