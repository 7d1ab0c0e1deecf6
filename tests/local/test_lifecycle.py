"""Starting and stopping: complete, repeatable, and leaving nothing behind, however it ends."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.conftest import connection_settings

ROOT = Path(__file__).parents[2]


def below(pid):
    """Its own children, by name. What the Postgres of another local Lakebase starts meanwhile is no matter of ours."""
    return {child.pid: child.name() for child in psutil.Process(pid).children()}


def traces(before=frozenset()):
    """Temporary directories of local Lakebases, but those there were."""
    return set(Path(tempfile.gettempdir()).glob("lakebase-*")) - before


def threads():
    return {thread for thread in threading.enumerate() if thread.name == "local-lakebase"}


@pytest.fixture
def own_tempdir(tmp_path_factory, short_path, monkeypatch):
    tmp_path_factory.getbasetemp()  # in the usual place
    monkeypatch.setenv("TMPDIR", str(short_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return short_path


def test_nothing_starts_before_it_is_asked_to(own_tempdir):
    before, running = threads(), below(os.getpid())
    lake = LocalLakebase()
    assert (threads(), below(os.getpid()), traces()) == (before, running, set())
    assert not lake.is_running
    lake.stop()


def test_stopping_leaves_no_process_thread_or_file(own_tempdir):
    before, running = threads(), below(os.getpid())
    with LocalLakebase() as lake:
        assert lake.is_running
        assert len(traces()) == 1
        assert len(threads()) == len(before) + 1
        with psycopg.connect(**connection_settings(lake, lake.admin_user)) as connection:
            connection.execute("select 1")
    assert (threads(), below(os.getpid()), traces()) == (before, running, set())


def test_an_exception_inside_leaves_nothing_either(own_tempdir):
    running = below(os.getpid())
    with pytest.raises(ZeroDivisionError), LocalLakebase():
        raise ZeroDivisionError
    assert (below(os.getpid()), traces()) == (running, set())


def test_start_and_stop_may_be_called_twice_and_again(own_tempdir):
    lake = LocalLakebase()
    lake.start()
    port = lake.port
    assert lake.start() is lake
    assert lake.port == port
    lake.stop()
    lake.stop()
    with lake:
        psycopg.connect(**connection_settings(lake, lake.admin_user)).close()


def test_stopping_with_clients_connected_ends_them(own_tempdir):
    with LocalLakebase() as lake:
        connections = [psycopg.connect(**connection_settings(lake, lake.admin_user)) for _ in range(5)]
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        connection.close()


def test_stopping_while_faults_hold_clients_does_not_wait_for_them(own_tempdir):
    with LocalLakebase() as lake:
        settings = connection_settings(lake, lake.admin_user)
        fault = lake.hang()
        lake.hold_workspace()
        failed = []

        def connect():
            with pytest.raises(psycopg.OperationalError) as caught:
                psycopg.connect(**settings)
            failed.append(caught.value)

        thread = threading.Thread(target=connect)
        thread.start()
        fault.wait(1)
    thread.join(10)
    assert len(failed) == 1
    fault.clear()  # too late, and no error


@pytest.mark.parametrize("use", ["port", "workspace_url", "admin_token", "add_user", "stats", "suspend", "refuse"])
def test_what_needs_it_running_says_so(use):
    lake = LocalLakebase()
    with pytest.raises(LocalLakebaseError, match=r"not running: use it as a context manager, or call start\(\)"):
        found = getattr(lake, use)
        found("ann@corp.example") if use == "add_user" else found()


def test_a_representation_shows_no_secret():
    lake = LocalLakebase()
    assert repr(lake) == "<LocalLakebase not running>"
    with lake:
        lake.add_user("ann@corp.example")
        seen = repr(lake) + repr(lake.stats()) + repr(lake._running.issuer.mint("ann@corp.example"))
        assert f"127.0.0.1:{lake.port}" in seen
        assert lake.token("ann@corp.example") not in seen
        assert "eyJ" not in seen


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70000}, "port=70000"),
        ({"port": -1}, "port=-1"),
        ({"max_connections": 0}, "max_connections=0"),
        ({"token_lifetime": 0}, "token_lifetime=0"),
        ({"suspend_timeout": 0}, "suspend_timeout=0"),
        ({"compute_units": 0.25}, "compute_units=0.25"),
        ({"compute_units": "1"}, "compute_units='1': expected 0.5 to 112"),
        ({"port": "5432"}, "port='5432': expected 0 to 65535, a whole number"),
        ({"workspace_port": True}, "workspace_port=True: expected 0 to 65535"),
        ({"max_connections": 2.5}, r"max_connections=2\.5: expected 1 or more, a whole number"),
        ({"token_lifetime": math.nan}, "token_lifetime=nan: expected seconds, more than 0"),
        ({"token_lifetime": math.inf}, "token_lifetime=inf: expected seconds, more than 0 and at most"),
        ({"token_lifetime": "60"}, "token_lifetime='60'"),
        ({"suspend_timeout": math.nan}, "suspend_timeout=nan: .*, or None for never"),
        ({"wake_after": -1}, "wake_after=-1: expected seconds, 0 or more"),
        ({"wake_after": math.nan}, "wake_after=nan"),
        ({"while_waking": "x"}, "while_waking='x': expected '57P03', 'refused' or 'wait'"),
        ({"read_only": "no"}, "read_only='no': expected True or False"),
        ({"pooler": None}, "pooler=None"),
        ({"data_dir": ""}, "data_dir=''"),
    ],
)
def test_bad_settings_are_refused_at_construction(settings, words):
    with pytest.raises(ValueError, match=words):
        LocalLakebase(**settings)


def test_a_taken_port_is_named_and_nothing_stays(own_tempdir):
    running = below(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalLakebaseError, match=rf"cannot listen on 127.0.0.1:{port}.*port="):
            LocalLakebase(port=port).start()
    assert (below(os.getpid()), traces()) == (running, set())


@pytest.mark.parametrize("state", ["listening", "refusing", "waking"])
def test_a_port_that_another_local_lakebase_has_is_taken_whether_it_listens_or_not(own_tempdir, state):
    with LocalLakebase(pooler="off") as one:
        if state == "refusing":
            one.refuse()
        elif state == "waking":
            one.suspend(wake_after=None, while_waking="refused")
        with pytest.raises(LocalLakebaseError, match=rf"cannot listen on 127.0.0.1:{one.port}.*port="):
            LocalLakebase(port=one.port, pooler="off").start()
        one.clear_faults()
        psycopg.connect(**connection_settings(one, one.admin_user)).close()


def test_a_port_is_free_again_as_soon_as_its_local_lakebase_has_stopped(own_tempdir):
    with LocalLakebase(pooler="off") as lake:
        port = lake.port
        psycopg.connect(**connection_settings(lake, lake.admin_user)).close()
    with LocalLakebase(port=port, pooler="off") as lake:
        psycopg.connect(**connection_settings(lake, lake.admin_user)).close()


def test_a_taken_port_of_the_workspace_is_named_and_nothing_stays(own_tempdir):
    running = below(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = rf"cannot listen on 127.0.0.1:{port}: Address already in use\. Give another workspace_port="
        with pytest.raises(LocalLakebaseError, match=words):
            LocalLakebase(workspace_port=port, pooler="off").start()
    assert (below(os.getpid()), traces()) == (running, set())


def test_a_data_directory_that_cannot_be_is_named_and_nothing_stays(own_tempdir, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for impossible in (file, file / "below", Path("/proc/x")):
        with pytest.raises(LocalLakebaseError, match=f"data_dir '{impossible}' cannot be used: "):
            LocalLakebase(impossible).start()
    assert traces() == set()


def test_a_missing_postgres_is_named_with_what_to_install(own_tempdir, tmp_path):
    with pytest.raises(LocalLakebaseError, match=r"looked in: .*nowhere.*lakebase-pooling\[local\]"):
        LocalLakebase(postgres=tmp_path / "nowhere").start()
    assert traces() == set()


def test_the_environment_of_one_does_not_keep_another_from_starting(own_tempdir, monkeypatch):
    with LocalLakebase() as first:
        for name, value in {**first.environment(), "PGOPTIONS": "-c nonsense=1", "PGHOSTADDR": "127.0.0.9"}.items():
            monkeypatch.setenv(name, value)
        with LocalLakebase() as second:
            second.add_user("ann@corp.example")
            monkeypatch.delenv("PGOPTIONS")
            monkeypatch.delenv("PGHOSTADDR")
            psycopg.connect(**connection_settings(second, "ann@corp.example")).close()


#: What a client of another database may have set, and what makes no sense to this one.
FOREIGN = {
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "x",
    "PGGSSENCMODE": "require",
    "PGLOADBALANCEHOSTS": "x",
    "PGPASSFILE": "/nowhere",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody-at-all",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1.1",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGTARGETSESSIONATTRS": "standby",
}


def test_no_variable_and_no_service_of_a_client_keeps_it_from_working(own_tempdir, tmp_path, monkeypatch):
    services = tmp_path / "pg_service.conf"
    services.write_text(
        "[theirs]\nhost=db.example\nsslcert=/nowhere\nrequirepeer=nobody-at-all\noptions=-c nonsense=1\n"
    )
    for name, value in {**FOREIGN, "PGSERVICEFILE": str(services), "PGSERVICE": "theirs"}.items():
        monkeypatch.setenv(name, value)
    with LocalLakebase(pooler="off") as lake:
        password = lake.mint(lake.admin_user)
        lake.add_password_role("reporting", "secret")
        for name in (*FOREIGN, "PGSERVICE"):
            monkeypatch.delenv(name)  # the test's own client honours them
        # That one has no effect on its connection by TLS; it would on what the gateway asks Postgres meanwhile.
        monkeypatch.setenv("PGREQUIREPEER", "nobody-at-all")
        psycopg.connect(**connection_settings(lake, lake.admin_user, password)).close()


def test_a_service_that_nobody_has_defined_is_named_at_once(own_tempdir, monkeypatch):
    running = below(os.getpid())
    monkeypatch.setenv("PGSERVICE", "nobody_has_defined_this")
    with pytest.raises(LocalLakebaseError, match=r"PGSERVICE='nobody_has_defined_this'.*Unset it"):
        LocalLakebase(pooler="off").start()
    assert (below(os.getpid()), traces()) == (running, set())


def test_the_supervisor_has_nothing_to_say_to_an_owner_that_does_not_listen_any_more(tmp_path):
    (tmp_path / "doomed").mkdir()
    command = [sys.executable, "-I", "-S", ROOT / "lakebase" / "local" / "_supervisor.py"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        process.stdout.close()
        orders = {"do": "prepare", "paths": [], "remove": [str(tmp_path / "doomed")]}
        process.stdin.write(json.dumps(orders) + "\n")
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_clash(own_tempdir):
    with LocalLakebase() as one, LocalLakebase() as two:
        assert one.port != two.port
        assert one.workspace_url != two.workspace_url
        one.add_user("ann@corp.example")
        with pytest.raises(LocalLakebaseError, match=r"no user 'ann@corp\.example'"):
            two.token("ann@corp.example")
        password = one.mint("ann@corp.example")
        two.add_user("ann@corp.example")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(**connection_settings(two, "ann@corp.example", password))


def test_data_and_certificates_stay_in_a_directory_of_ones_own(own_tempdir, tmp_path):
    kept = tmp_path / "kept"
    with LocalLakebase(kept) as lake:
        ca = lake.ca_file.read_text()
        lake.add_password_role("reporting", "secret")
        with psycopg.connect(**connection_settings(lake, lake.admin_user), autocommit=True) as connection:
            connection.execute("create table kept as select 7 as i")
            connection.execute("grant select on kept to reporting")
    assert traces() == set()
    with LocalLakebase(kept) as lake:
        assert lake.ca_file.read_text() == ca
        with psycopg.connect(**connection_settings(lake, "reporting", "secret")) as connection:
            assert connection.execute("select i from kept").fetchone() == (7,)
        with pytest.raises(LocalLakebaseError, match="in use"):
            LocalLakebase(kept).start()
        psycopg.connect(**connection_settings(lake, "reporting", "secret")).close()
    assert {path.stat().st_mode & 0o077 for path in (kept, kept / "pgdata")} == {0}


# The process that owns it ends


OWNER = """\
import os, signal, sys, threading
from lakebase.local import LocalLakebase
lake = LocalLakebase().start()
print(lake.port, flush=True)
sys.stdin.readline()
"""


def owner(then, short_path):
    """A process with a local Lakebase that goes on with some statement; all that it started."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER + textwrap.dedent(then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(short_path)},
        text=True,
    )
    port = process.stdout.readline()
    assert port.strip().isdigit(), process.communicate()
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("postgres" in child.name() for child in started)
    process.stdin.write("go on\n")
    process.stdin.flush()
    return process, started


def assert_gone(started, short_path):
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive
    assert list(short_path.glob("lakebase-*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_that_ends_the_process_ends_everything(short_path, number):
    process, started = owner("threading.Event().wait()", short_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in (-number, 130)
    assert "Traceback" not in errors or number == signal.SIGINT
    assert_gone(started, short_path)


@pytest.mark.parametrize("then", ["", "os._exit(0)", "1 / 0"])
def test_a_process_that_forgets_to_stop_it_ends_at_once_and_leaves_nothing(short_path, then):
    process, started = owner(then, short_path)
    _, errors = process.communicate(timeout=20)
    assert errors == "" or then == "1 / 0"
    assert_gone(started, short_path)


def test_a_forked_child_neither_keeps_it_alive_nor_ends_it(short_path):
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
    process, started = owner(then, short_path)
    lines = [process.stdout.readline() for _ in range(3)]
    # While the child lives, all but it ends; it was not there yet when the others were listed.
    _, alive = psutil.wait_procs(started, timeout=20)
    output, errors = process.communicate(timeout=20)
    assert not alive
    assert errors == ""
    assert sorted(line for line in lines if "not running" not in line) == ["True\n", "still there\n"]
    assert output == ""
    assert_gone(started, short_path)


def test_should_the_supervisor_be_killed_the_servers_end_too(short_path):
    process, started = owner("threading.Event().wait()", short_path)
    supervisor = next(child for child in started if child.ppid() == process.pid)
    supervisor.kill()
    _, alive = psutil.wait_procs([child for child in started if child.pid != supervisor.pid], timeout=20)
    process.kill()
    process.communicate(timeout=20)
    assert not alive


# As whom


AS = """
import os
import psycopg
from lakebase.local import LocalLakebase
with LocalLakebase(pooler="off") as lake:
    settings = dict(host=lake.host, port=lake.port, dbname=lake.database, user=lake.admin_user, sslmode="require")
    with psycopg.connect(**settings, password=lake.mint(lake.admin_user)) as connection:
        print(os.geteuid(), connection.execute("select 1").fetchone()[0], lake._parts.children.identity)
"""


def as_user(uid):
    return ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}"]


def namespaces_work():
    try:
        return subprocess.run([*as_user(1), "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not namespaces_work(), reason="user namespaces are blocked here, or there is no unshare")
@pytest.mark.parametrize(("uid", "identity"), [(0, "namespace"), (1, "own"), (54321, "namespace")])
def test_it_runs_as_root_as_a_user_and_as_one_without_a_name(short_path, uid, identity):
    result = subprocess.run(
        [*as_user(uid), sys.executable, "-c", AS],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(short_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == f"{uid} 1 {identity}\n", result.stderr
    assert list(short_path.iterdir()) == []
