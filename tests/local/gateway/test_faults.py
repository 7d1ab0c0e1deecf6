"""Each fault of the database, as a client meets it."""

import contextlib
import threading
import time

import psycopg
import pytest

from tests.local.clients import connect, refusal


def test_while_it_refuses_the_port_does_not_listen(lake, user, settings, connection):
    with lake.refuse():
        assert "Connection refused" in refusal(settings)
        assert connection.execute("select 1").fetchone() == (1,)
    assert connect(settings) == user


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
def test_a_server_error_has_the_message_of_postgres(lake, user, settings, code, text):
    with lake.refuse(code) as fault:
        assert text in refusal(settings)
        assert fault.hits == 1
    assert connect(settings) == user


def test_an_error_can_have_another_message(lake, user, settings):
    with lake.refuse("XX000", "not today, {user}"):
        assert f"not today, {user}" in refusal(settings)


@pytest.mark.parametrize("message", ["weird {x}", "{", "{user!r:>99}", "100 % of {0}", "for {user}"])
def test_only_the_user_is_replaced_in_a_message(lake, user, settings, message):
    with lake.refuse("57P03", message):
        assert message.replace("{user}", user) in refusal(settings)


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
def test_a_fault_that_makes_no_sense_is_an_error_at_once(lake, settings, user, arguments, words):
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
    assert [future.result(60) for future in waiting] == [user] * 5


def test_a_stalled_network_holds_a_running_statement(lake, user, connection, threads):
    with lake.stall():
        answer = threads.submit(lambda: connection.execute("select 42").fetchone())
        pid = connection.info.backend_pid
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        assert pid
    assert answer.result(60) == (42,)


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
        worker.result(60)
    lake.wait_for_connections(0, user)
