"""A forked child leaves the local Lakebase to its parent."""

import os
import signal
import warnings

import psutil

from lakebase.local.fork import OwnerProcess, close_in_forked_children
from tests.local.owner import assert_gone, start_owner


def test_a_forked_child_neither_keeps_it_running_nor_stops_it(short_path):
    then = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork, since there are threads: that is the point
    child = os.fork()
    if child == 0:
        try:
            lake.port
        except Exception as error:
            print(error, flush=True)
        lake.stop()
        sys.stdin.read()
        os._exit(0)
    import psycopg
    settings = dict(host=lake.host, port=lake.port, dbname=lake.database, user=lake.admin_user, sslmode="require")
    with psycopg.connect(**settings, password=lake.mint(lake.admin_user)) as connection:
        print(connection.execute("select 'still there'").fetchone()[0], flush=True)
    lake.stop()
    try:
        psycopg.connect(**settings, password="x")
    except psycopg.OperationalError as error:
        print("refused" in str(error), flush=True)
    os.waitpid(child, 0)
    """
    process, started = start_owner(then, short_path)
    lines = [process.stdout.readline() for _ in range(3)]
    # While the child lives, all but it ends; it was not there yet when the others were listed.
    _, alive = psutil.wait_procs(started, timeout=60)
    output, errors = process.communicate(timeout=60)
    assert not alive
    assert errors == ""
    assert sorted(line for line in lines if "not running" not in line) == ["True\n", "still there\n"]
    assert output == ""
    assert_gone(started, short_path)


class Holder:
    def __init__(self, *descriptors):
        self._descriptors = descriptors

    def descriptors(self):
        return list(self._descriptors)


def test_a_forked_child_closes_the_descriptors_and_the_parent_keeps_them():
    reading, writing = os.pipe()
    holder = Holder(writing)
    close_in_forked_children(holder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process may have threads
        child = os.fork()
    if child == 0:
        os.write(writing, b"child")  # to the null device
        signal.pause()  # keeps what it has inherited
    try:
        os.write(writing, b"parent")
        os.close(writing)
        assert os.read(reading, 100) == b"parent"
        assert os.read(reading, 100) == b"", "no other process can write"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


def test_only_the_process_itself_is_the_owner():
    owner = OwnerProcess()
    assert owner.is_this_one()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(int(owner.is_this_one()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
