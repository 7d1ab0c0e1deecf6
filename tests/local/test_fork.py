"""A forked child leaves the local Lakebase to its parent."""

import psutil

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
