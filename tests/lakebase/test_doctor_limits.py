"""The doctor on limits, the pooler, the store of a shared budget, and what keeps the compute awake."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psycopg
import pytest
from databricks.sdk.service.postgres import Endpoint, EndpointSpec, EndpointType
from google.protobuf.duration_pb2 import Duration

from lakebase._doctor.awake import Sessions, judged
from lakebase._doctor.store import judged_server, unfit_server
from lakebase.doctor import Verdict, diagnose
from pooling.leases import PostgresLeases
from tests.lakebase.doctor_parts import found, found_one, mend, run
from tests.leases.servers import RedisServer
from tests.ports import free_port

pytestmark = pytest.mark.usefixtures("no_ambient_settings")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def sleepy_endpoint(lakebase_local):
    """An endpoint that says that it is suspended after five minutes without use."""
    spec = EndpointSpec(EndpointType.ENDPOINT_TYPE_READ_ONLY, suspend_timeout_duration=Duration(seconds=300))
    owner = lakebase_local.workspace_client().postgres
    branch = lakebase_local.endpoint.partition("/endpoints/")[0]
    made = owner.create_endpoint(branch, Endpoint(spec=spec), "sleepy").wait()
    yield made.name
    owner.delete_endpoint(made.name).wait()


# Limits


def test_workers_and_replicas_are_multiplied(lakebase_user) -> None:
    limits = found_one("limits", lakebase_user.config(replicas=2), max_total=5, workers=3)
    assert limits.verdict is Verdict.OK
    assert limits.found.startswith("2 replicas x 3 workers x 5 = 30 wanted of ")


def test_more_than_the_compute_takes_has_one_limit_for_all_as_a_fix(lakebase_user) -> None:
    limits = found_one("limits", lakebase_user.config(replicas=2), max_total=100, workers=2)
    assert limits.verdict is Verdict.WARNING
    assert "more than the 209 direct connections at 1 CU" in limits.found
    shared, larger = limits.fixes
    assert (shared.kind, larger.kind) == ("python", "shell")
    compile(shared.text, "fix", "exec")
    assert "SharedBudget(188, RedisLeases(" in shared.text
    assert "the rest of the 209 is for migrations and people" in shared.where
    assert "share one limit below 209" in limits.found
    assert '"autoscaling_limit_max_cu": 2' in larger.text


def test_workers_of_one_host_share_a_limit_in_a_directory(lakebase_user) -> None:
    limits = found_one("limits", lakebase_user.config(), max_total=100, workers=4)
    assert limits.found.startswith("4 processes of 100 connections are 400")
    assert "FileLeases(" in limits.fixes[0].text


def test_a_replica_more_than_there_is_room_for_is_a_note(lakebase_user) -> None:
    limits = found_one("limits", lakebase_user.config(replicas=2), max_total=40)
    assert limits.verdict is Verdict.NOTE
    assert limits.found.endswith("a further replica does not fit")
    assert limits.fixes[0].kind == "python"


def test_with_a_store_the_limit_is_that_of_all_processes(lakebase_user, tmp_path: Path) -> None:
    limits = found_one("limits", lakebase_user.config(), max_total=80, workers=4, store=str(tmp_path))
    assert limits.verdict is Verdict.OK
    assert limits.found.startswith("80 wanted, shared by 4 processes, of ")


def test_the_limit_of_a_role_is_raised_by_the_sql_of_the_finding(lakebase_local, admin) -> None:
    admin.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 5 PASSWORD 'f3w-connections'")
    try:
        config = lakebase_local.config("few", password="f3w-connections")
        limits = found_one("limits", config)
        assert limits.verdict is Verdict.WARNING
        assert "the role itself may have 5" in limits.found
        mend(admin, limits)
        assert found_one("limits", config).verdict is Verdict.OK
    finally:
        admin.execute("DROP ROLE few")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"max_total": 0}, "max_total=0: expected a whole number, 1 or more"),
        ({"workers": True}, "workers=True: expected a whole number, 1 or more"),
        ({"store": ""}, "store: it is empty"),
        ({"store": "http://pw@host"}, "store: it has a scheme that is none of redis://"),
        ({"store": "blah:pw"}, "store: it has a scheme that is none of redis://"),
        ({"store": "redis:pw/0"}, "store: it has a scheme that is none of redis://"),
    ],
)
def test_what_cannot_be_asked_ends_the_examination(asked: dict, words: str) -> None:
    (finding,) = diagnose({}, environ={}, **asked)
    assert finding.verdict is Verdict.FAILED
    assert finding.found.startswith(words)
    assert "pw" not in finding.found


# The pooler


def test_the_pooler_in_use_says_what_a_client_waits(lakebase_local) -> None:
    if lakebase_local.pooled_host is None:
        pytest.skip(f"no pooler: {lakebase_local.why_no_pooler}")
    lakebase_local.add_password_role("pooled_patient", "p00led-pw")
    config = lakebase_local.config("pooled_patient", password="p00led-pw", pooled=True)
    pooler = found_one("pooler", config)
    assert pooler.verdict in (Verdict.OK, Verdict.NOTE)  # a note where libpq is older than 17
    assert "a client waits at most 120 s for a server connection" in pooler.found
    assert found_one("pooler", config.merged({"timeout": 200})).verdict is Verdict.WARNING
    assert found_one("limits", config).verdict is Verdict.SKIPPED  # the size of the compute is not known


def test_a_poolers_name_that_is_used_as_a_direct_host_is_told() -> None:
    host = "ep-x-pooler.database.us-east-1.cloud.databricks.com"
    config = {"host": host, "database": "d", "user": "u", "password": "p", "connect_timeout": 2}
    pooler = found_one("pooler", config)
    assert pooler.verdict is Verdict.WARNING
    assert "ep-x.database.us-east-1.cloud.databricks.com" in pooler.advice


# The store: files


def test_a_directory_is_locked_in(lakebase_user, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    leases = tmp_path / "leases"
    store = found_one("store", lakebase_user.config(), store=str(leases))
    assert (store.verdict, "the first process makes it" in store.found) == (Verdict.OK, True)
    leases.mkdir()
    store = found_one("store", lakebase_user.config(), store=str(leases))
    assert (store.verdict, "a file is locked in" in store.found) == (Verdict.OK, True)
    assert list(leases.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert found_one("store", lakebase_user.config(), store=str(leases)).verdict is Verdict.NOTE


def test_a_directory_of_many_hosts_or_of_none_does_not_do(lakebase_user, tmp_path: Path) -> None:
    store = found_one("store", lakebase_user.config(replicas=2), store=str(tmp_path))
    assert store.verdict is Verdict.FAILED
    assert "there are 2 replicas" in store.found
    store = found_one("store", lakebase_user.config(), store=str(tmp_path / "none" / "leases"))
    assert store.verdict is Verdict.FAILED
    assert store.fixes[0].text == f"install -d -m 700 {tmp_path}/none/leases"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_another_user_does_not_do(lakebase_user, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    store = found_one("store", lakebase_user.config(), store=str(tmp_path))
    assert store.verdict is Verdict.FAILED
    assert "may not write there" in store.found


# The store: Redis


def test_a_redis_server_answers_and_keeps_nothing(lakebase_user, redis_server) -> None:
    import redis

    store = found_one("store", lakebase_user.config(), store=redis_server.url)
    assert store.verdict is Verdict.OK
    assert f"at 127.0.0.1:{redis_server.port}: an answer takes" in store.found
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.keys() == []


def test_a_redis_server_that_evicts_leases_is_mended_by_the_command_of_the_finding(lakebase_user, redis_server) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert found_one("store", lakebase_user.config(), store=redis_server.url).verdict is Verdict.NOTE
        client.config_set("maxmemory", "64mb")
        store = found_one("store", lakebase_user.config(), store=redis_server.url)
        assert store.verdict is Verdict.WARNING
        client.execute_command(*store.fixes[0].text.removeprefix("redis-cli ").split())
        client.config_set("maxmemory", "0")
    assert found_one("store", lakebase_user.config(), store=redis_server.url).verdict is Verdict.OK


def test_a_user_of_redis_is_allowed_what_leases_need_by_the_command_of_the_finding(lakebase_user, redis_server) -> None:
    import shlex

    import redis

    url = redis_server.url.replace("//", "//app:s3cret@")
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">s3cret", "resetkeys", "-@all", "+ping", "+info")
        store = found_one("store", lakebase_user.config(), store=url)
        assert store.verdict is Verdict.FAILED
        assert "refuses this user" in store.found
        assert "s3cret" not in repr(store)
        _, *command = shlex.split(store.fixes[0].text.replace("\\\n", " "))
        client.execute_command(*command)
        client.execute_command("ACL", "SETUSER", "app", "-publish")
        assert "refuses this user" in found_one("store", lakebase_user.config(), store=url).found
        client.execute_command(*command)
    assert found_one("store", lakebase_user.config(), store=url).verdict is Verdict.OK
    wrong = found_one("store", lakebase_user.config(), store=url.replace("s3cret", "wr0ng"))
    assert "refuses this user" in wrong.found


def test_a_replica_of_redis_takes_no_leases(lakebase_user, redis_server, tmp_path: Path) -> None:
    import redis

    with RedisServer(tmp_path) as other, redis.Redis.from_url(other.url) as client:
        client.replicaof("127.0.0.1", redis_server.port)
        store = found_one("store", lakebase_user.config(), store=other.url)
    assert store.verdict is Verdict.FAILED
    assert "a replica, which takes no writes" in store.found


def test_a_redis_server_that_is_not_there_is_told(lakebase_user) -> None:
    store = found_one("store", lakebase_user.config(), store=f"redis://:pw@127.0.0.1:{free_port()}/0")
    assert store.verdict is Verdict.FAILED
    assert "ConnectionError" in store.found
    assert "pw" not in repr(store)


def test_a_redis_server_that_is_too_old_or_slow_is_told() -> None:
    # No package of a Redis before 5 is to be had; this is what one says of itself.
    old = unfit_server({"redis_version": "4.0.9", "role": "master"}, "cache:6379")
    assert old is not None
    assert old.found == "Redis 4.0.9 at cache:6379: leases need 5 or newer"
    valkey = {"redis_version": "7.2.4", "valkey_version": "8.1.0", "role": "master"}
    assert unfit_server(valkey, "cache:6379") is None
    slow = judged_server(valkey, "cache:6379", 0.2)
    assert (slow.verdict, slow.found) == (Verdict.WARNING, "Valkey 8.1.0 at cache:6379: an answer takes 200.0 ms")


def test_a_store_with_a_password_is_no_argument(lakebase_user, monkeypatch, redis_server, capsys) -> None:
    assert run("--store", "redis://:s3cret@cache/0") == (2, "")
    message = capsys.readouterr().err
    assert "--store env:NAME" in message
    assert "s3cret" not in message
    assert run("--store", "env:NO_SUCH_VARIABLE") == (2, "")
    for name, value in lakebase_user.lake.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEASES", redis_server.url)
    status, text = run("--store", "env:LEASES")
    assert status == 0, text
    assert "ok    store" in text


# The store: a table


def test_a_table_of_leases_is_made_and_granted_by_the_sql_of_the_finding(lakebase_user, admin, schema: str) -> None:
    admin.execute(f'GRANT USAGE ON SCHEMA {schema} TO "{lakebase_user.name}"')
    store = f"postgres:{schema}.leases"
    missing = found_one("store", lakebase_user.config(), store=store)
    assert missing.verdict is Verdict.FAILED
    admin.execute(PostgresLeases(lambda: None, table=f"{schema}.leases").create_sql().encode())
    closed = found_one("store", lakebase_user.config(), store=store)
    assert "this role has no SELECT, INSERT, UPDATE" in closed.found
    mend(admin, closed)
    fine = found_one("store", lakebase_user.config(replicas=3), store=store)
    assert fine.verdict is Verdict.OK
    assert "3 processes need a connection each beside the limit" in fine.found
    admin.execute(f"DROP TABLE {schema}.leases")
    mend(admin, missing)
    assert found_one("store", lakebase_user.config(), store=store).verdict is Verdict.OK
    admin.execute(f"ALTER TABLE {schema}.leases ENABLE ROW LEVEL SECURITY")
    assert "row-level security" in found_one("store", lakebase_user.config(), store=store).found


def test_a_table_of_leases_keeps_a_compute_awake(lakebase_user, admin, schema: str, sleepy_endpoint: str) -> None:
    admin.execute(f'GRANT USAGE ON SCHEMA {schema} TO "{lakebase_user.name}"')
    leases = PostgresLeases(lambda: None, table=f"{schema}.leases")
    admin.execute(leases.create_sql(f'"{lakebase_user.name}"').encode())
    config = lakebase_user.config(endpoint=sleepy_endpoint)
    store = found_one("store", config, store=f"postgres:{schema}.leases")
    assert store.verdict is Verdict.NOTE
    assert "renewing leases keeps the compute awake" in store.found


def test_a_table_is_not_looked_at_without_a_login_or_a_name(lakebase_user) -> None:
    assert found_one("store", {"password": "p"}, store="postgres").verdict is Verdict.SKIPPED
    store = found_one("store", lakebase_user.config(), store="postgres:no name")
    assert (store.verdict, "expected the name of a table" in store.found) == (Verdict.FAILED, True)


# Awake


def test_sessions_are_told_by_program_and_state(lakebase_user, sleepy_endpoint: str) -> None:
    config = lakebase_user.config(endpoint=sleepy_endpoint, application_name="orders")
    password = lakebase_user.lake.mint(lakebase_user.name)
    with psycopg.connect(**config.connect_kwargs(), password=password) as one:
        one.execute("SELECT 1")
        one.commit()
        awake = found_one("kept awake", config)
        assert awake.verdict is Verdict.NOTE
        assert "within the 300 s after which it would be suspended, 1 session used it" in awake.found
        (line,) = [line for line in awake.details if "'orders'" in line]
        assert "local Lakebase" not in " ".join(awake.details)
        assert line.startswith(f"'orders' of {lakebase_user.name}: 1 session idle, last statement 0 s ago, ")
        one.execute("SELECT 2")
        lines = found_one("kept awake", config).details
        assert any("1 session idle in transaction" in line for line in lines)


@pytest.mark.usefixtures("admin")
def test_sessions_of_others_are_counted_and_not_seen_into(lakebase_user) -> None:
    limits = found_one("limits", lakebase_user.config())
    assert int(limits.found.split()[-3]) >= 2, limits.found
    awake = found_one("kept awake", lakebase_user.config())
    name = lakebase_user.lake.admin_user
    assert any(f"of {name}: 1 session, whose state this role may not see" in line for line in awake.details)


def sessions(state: str, *, last: float = 5.0, in_state: float = 5.0, pings: bool = False) -> Sessions:
    return Sessions("app", "orders", state, True, 3, last, in_state, 7200.0, pings)


def test_a_session_that_idles_in_a_transaction_is_ended_by_the_server() -> None:
    awake = judged([sessions("idle in transaction", in_state=600.0)], 7200.0, 300.0)
    assert awake.verdict is Verdict.WARNING
    assert awake.found == "the server has been up for 2 h; 3 sessions in a transaction or a statement for 10 min"
    assert awake.sql == "ALTER ROLE \"app\" SET idle_in_transaction_session_timeout = '5min';"


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (sessions("active", in_state=7200.0), Verdict.WARNING),
        (sessions("active"), Verdict.NOTE),
        (sessions("idle in transaction"), Verdict.NOTE),
        (sessions("idle", last=299.0), Verdict.NOTE),
        (sessions("idle", last=301.0), Verdict.OK),
    ],
)
def test_what_a_session_means_for_the_compute(given: Sessions, verdict: Verdict) -> None:
    assert judged([given], 100.0, 300.0).verdict is verdict


def test_pings_are_recognized_and_an_endpoint_that_never_sleeps_is_not_kept_awake() -> None:
    awake = judged([sessions("idle", pings=True)], 100.0, 300.0)
    assert "switch the ping off" in awake.advice
    assert awake.details == (
        "'orders' of app: 3 sessions idle, last statement 5 s ago, which was a ping, the oldest open for 2 h",
    )
    assert judged([sessions("idle", pings=True)], 100.0, None).verdict is Verdict.OK


def test_nothing_is_said_of_a_store_that_is_not_named(lakebase_user) -> None:
    assert found("store", lakebase_user.config()) == []
