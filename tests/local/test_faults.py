"""Each fault, as a client meets it, and the end of it."""

import asyncio
import contextlib
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from lakebase.local import LocalLakebaseError
from lakebase.local._listener import Listener
from tests.local.conftest import connection_settings


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def connect(settings):
    with contextlib.closing(
        psycopg.connect(**settings)
    ) as connection:  # its own block leaves it open if a commit fails
        return connection.execute("select current_user").fetchone()[0]


def refusal(settings):
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**settings)
    return str(caught.value)


def test_a_refused_connection_finds_nobody_listening(lake, user, settings, connection):
    with lake.refuse():
        assert "Connection refused" in refusal(settings)
        assert connection.execute("select 1").fetchone() == (1,)
    assert connect(settings) == user


def test_the_port_stays_reserved_while_nobody_listens(lake, settings):
    import socket

    with lake.refuse(), socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind((lake.host, lake.port))
        refusal(settings)


def test_a_reset_connection_gets_no_answer(lake, user, settings):
    with lake.refuse("reset", count=1) as fault:
        text = refusal(settings)
        assert "server closed the connection" in text or "reset by peer" in text
        assert fault.hits == 1
    assert connect(settings) == user


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("57P03", "the database system is starting up"),
        ("53300", "sorry, too many clients already"),
        ("28P01", "password authentication failed for user"),
    ],
)
def test_a_server_error_has_the_servers_words(lake, user, settings, code, text):
    with lake.refuse(code) as fault:
        assert text in refusal(settings)
        assert fault.hits == 1
    assert connect(settings) == user


def test_an_error_may_have_words_of_the_tests_own(lake, user, settings):
    with lake.refuse("XX000", "out of luck, {user}"):
        assert f"out of luck, {user}" in refusal(settings)


def test_a_fault_ends_after_its_count(lake, user, settings):
    fault = lake.refuse("57P03", count=2)
    refusal(settings)
    refusal(settings)
    assert connect(settings) == user
    assert fault.hits == 2


def test_a_fault_of_one_user_leaves_the_others_alone(lake, user, settings):
    with lake.too_many_connections(user=user):
        assert "too many clients" in refusal(settings)
        assert connect(connection_settings(lake, lake.admin_user)) == lake.admin_user


def test_of_two_faults_the_younger_wins(lake, settings):
    with lake.refuse("57P03"), lake.refuse("53300", count=1):
        assert "too many clients" in refusal(settings)
        assert "starting up" in refusal(settings)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reason": "no"}, "SQLSTATE"),
        ({"reason": "57p03"}, "SQLSTATE"),
        ({"reason": "99999"}, "needs a message"),
        ({"reason": "refused", "count": 1}, "'reset'"),
        ({"reason": "refused", "user": "ann"}, "'reset'"),
        ({"reason": "57P03", "count": 0}, "count=0"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_at_once(lake, settings, user, arguments, words):
    with pytest.raises(ValueError, match=words):
        lake.refuse(**arguments)
    assert connect(settings) == user


def test_a_delayed_connection_succeeds_later(lake, user, settings):
    with lake.delay(0.2, count=1):
        began = time.monotonic()
        assert connect(settings) == user
        assert time.monotonic() - began >= 0.2


def test_a_host_that_hangs_accepts_and_never_answers(lake, settings):
    with lake.hang() as fault:
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(**{**settings, "connect_timeout": 2})
        fault.wait(1)


def test_held_connections_go_on_when_the_fault_is_cleared(lake, user, settings, threads):
    with lake.hang() as fault:
        waiting = [threads.submit(connect, settings) for _ in range(5)]
        fault.wait(5)
        assert not any(future.done() for future in waiting)
    assert [future.result(20) for future in waiting] == [user] * 5


def test_a_stalled_network_holds_what_is_under_way(lake, user, connection, threads):
    with lake.stall():
        answer = threads.submit(lambda: connection.execute("select 42").fetchone())
        pid = connection.info.backend_pid
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        assert pid
    assert answer.result(20) == (42,)


def test_dropped_connections_hear_it_from_postgres(lake, user, connection, settings):
    assert lake.drop_connections(user) == 1
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        connection.execute("select 1")
    assert lake.stats().user(user).open == 0
    assert connect(settings) == user


def test_connections_may_be_dropped_without_a_word(lake, user, connection):
    assert lake.drop_connections(user, silently=True) == 1
    with pytest.raises(psycopg.OperationalError) as caught:
        connection.execute("select 1")
    assert "administrator" not in str(caught.value)
    assert lake.stats().user(user).open == 0


def test_a_statement_under_way_is_dropped_with_its_connection(lake, user, connection, admin, threads):
    running = threads.submit(connection.execute, "select pg_sleep(60)")
    while not admin.execute(
        "select 1 from pg_stat_activity where usename = %s and state = 'active'", (user,)
    ).fetchone():
        pass
    assert lake.drop_connections(user) == 1
    with pytest.raises(psycopg.OperationalError):
        running.result(20)
    assert admin.execute("select 1").fetchone() == (1,)


def test_suspending_drops_everybody_and_the_next_connection_wakes_it(lake, user, connection, settings):
    lake.suspend(wake_after=0.2)
    assert lake.state == "IDLE"
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    assert "the database system is starting up" in refusal(settings)
    assert lake.state == "INIT"
    eventually_connects(settings, user)
    assert lake.state == "ACTIVE"


def test_while_it_wakes_clients_may_be_refused(lake, user, settings):
    lake.suspend(wake_after=0.5, while_waking="refused")
    refusal(settings)
    assert "Connection refused" in refusal(settings)
    eventually_connects(settings, user)


def test_while_it_wakes_clients_may_be_kept_waiting(lake, user, settings):
    lake.suspend(wake_after=0.2, while_waking="wait")
    began = time.monotonic()
    assert connect(settings) == user
    assert time.monotonic() - began >= 0.2


def test_it_sleeps_until_it_is_resumed_where_it_must_not_wake_by_itself(lake, user, settings):
    lake.suspend(wake_after=None)
    for _ in range(3):
        refusal(settings)
    assert lake.state == "IDLE"
    lake.resume()
    assert connect(settings) == user


def test_a_suspended_compute_forgets_the_session_state(lake, user, settings):
    with psycopg.connect(**settings, autocommit=True) as connection:
        connection.execute("create temp table mine (i int)")
        lake.suspend(wake_after=0)
        connection.close()
    lake.resume()
    with psycopg.connect(**settings) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("select * from mine")


@pytest.mark.parametrize("crash", [False, True])
def test_data_survives_a_restart_and_sessions_do_not(lake, user, connection, settings, admin, crash):
    admin.execute("create table if not exists kept (i int)")
    admin.execute("grant select on kept to public")
    admin.execute("truncate kept")
    admin.execute("insert into kept values (7)")
    lake.restart_postgres(crash=crash)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    with psycopg.connect(**settings) as again:
        assert again.execute("select i from kept").fetchone() == (7,)


def test_everything_is_counted(lake, user, settings):
    connect(settings)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(psycopg.connect(**settings))
        stats = lake.stats().user(user)
        assert (stats.open, stats.peak) == (3, 3)
    lake.wait_for_connections(0, user)
    refusal({**settings, "password": "wrong"})
    stats = lake.stats().user(user)
    assert (stats.open, stats.peak, stats.total, stats.refused) == (0, 3, 4, 1)
    refusal({**settings, "sslmode": "disable"})
    assert lake.stats().user(user).refused == 2
    assert lake.stats().user("nobody@corp.example").total == 0


def test_waiting_for_connections_says_when_they_do_not_come(lake, user):
    with pytest.raises(LocalLakebaseError, match="0 connections are open, not 1"):
        lake.wait_for_connections(1, user, timeout=0.05)


def test_waiting_for_a_victim_says_when_none_comes(lake):
    with lake.refuse("57P03") as fault, pytest.raises(LocalLakebaseError, match="57P03"):
        fault.wait(timeout=0.05)


def test_faults_work_under_load(lake, user, settings, threads):
    """Dropping and refusing while many come and go loses no connection and counts none twice."""
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            with contextlib.suppress(psycopg.OperationalError):
                connect(settings)

    workers = [threads.submit(come_and_go) for _ in range(6)]
    for _ in range(10):
        lake.drop_connections(user, silently=True)
        with lake.refuse("57P03", user=user) as fault:
            fault.wait(1, timeout=30)
    over.set()
    for worker in workers:
        worker.result(30)
    lake.wait_for_connections(0, user)


def eventually_connects(settings, user):
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            assert connect(settings) == user
            return


def test_a_port_that_is_opened_twice_at_once_is_shut_by_shutting_it_once():
    async def play():
        listener = Listener("127.0.0.1", 0)
        try:
            await asyncio.gather(*(listener.open(asyncio.Protocol) for _ in range(2)))
            await asyncio.gather(*(listener.shut() for _ in range(2)))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(listener.host, listener.port)
        finally:
            listener.close()

    asyncio.run(play())


@pytest.mark.parametrize("message", ["weird {x}", "{", "{user!r:>99}", "100 % of {0}", "for {user}"])
def test_a_message_is_taken_as_it_is_but_for_the_user(lake, user, settings, message):
    with lake.refuse("57P03", message):
        assert message.replace("{user}", user) in refusal(settings)


def test_times_counts_and_states_that_cannot_be_are_refused(lake):
    for arrange, words in (
        (lambda: lake.suspend(math.nan), "wake_after=nan: expected seconds, 0 or more"),
        (lambda: lake.suspend(0.1, while_waking="x"), "while_waking='x'"),
        (lambda: lake.delay(math.nan), "seconds=nan"),
        (lambda: lake.hang(count=1.5), "count=1.5: expected 1 or more, a whole number"),
        (lambda: lake.fail_workspace("503"), "status='503': expected 400 to 599"),
        (lambda: lake.fail_workspace(503, retry_after=-1), "retry_after=-1"),
    ):
        with pytest.raises(ValueError, match=words):
            arrange()
    assert lake.state == "ACTIVE"
