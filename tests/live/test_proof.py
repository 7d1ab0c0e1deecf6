"""The short form of the live proof, and that each of its checks can fail."""

from __future__ import annotations

import dataclasses
import logging
from time import monotonic

import psycopg
import pytest

from lakebase import create_lakebase_pool
from lakebase.local import LocalLakebase
from tests.live.proof.faults import FAULTS
from tests.live.proof.record import Revocation, Span
from tests.live.proof.run import SHORT, Run


@pytest.fixture(scope="module")
def quiet():
    """Pools warn of every outage."""
    logger = logging.getLogger("lakebase")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def proven(quiet, request):
    """A run of the short form; the text of its outcome is shown where a test fails."""
    with LocalLakebase(postgres=request.config.getoption("--lakebase-postgres")) as lake:
        outcome = Run(lake, SHORT).go()
    print(outcome.text())  # noqa: T201 - what pytest shows with a failure
    return outcome


def phases(proven):
    return {phase.name: phase for phase in proven.phases}


def test_every_promise_is_kept_whatever_goes_wrong(proven):
    assert proven.violations == []
    assert max(proven.peaks) <= proven.allowed
    assert proven.answered > 20 * (SHORT.threads + SHORT.tasks)


def test_every_fault_was_met_by_requests(proven):
    ran = phases(proven)
    assert set(FAULTS) <= set(ran) | set(proven.not_run)
    assert min(phase.requests for phase in ran.values()) >= SHORT.threads + SHORT.tasks
    assert sum(phase.interrupted for phase in ran.values()) >= sum(phase.repeated for phase in ran.values()) > 0
    assert ran["users revoked"].turned_away >= 2
    assert ran["port closed"].longest_wait > SHORT.outage / 2
    assert proven.minted >= 3 * SHORT.users


def test_the_pooler_took_part(proven):
    if proven.not_run:
        pytest.skip(proven.not_run["pooler restarts"])
    assert phases(proven)["pooler restarts"].requests > 0


# --- each check can fail -------------------------------------------------------------------------------------------

TINY = dataclasses.replace(SHORT, users=4, threads=3, tasks=3, budget=4, timeout=1.0, rounds=1, closing=0.5)


@pytest.fixture(scope="module")
def spoiled(quiet, request):
    """A local Lakebase for runs that are meant to fail."""
    with LocalLakebase(pooler="off", postgres=request.config.getoption("--lakebase-postgres")) as lake:
        yield lake


def seen(record, words, patience=20.0):
    """Block until there is such a violation."""
    with record.changed:
        record.changed.wait_for(lambda: any(words in each for each in record.violations), patience)


def mixed_up(target):
    """Requests get another user's pool."""
    wrong = target.setup.identity(target.setup.users[0])
    for load in target.loads:
        load.resolve = lambda identity, load=load: load.manager.for_user(wrong)
    seen(target.record, "saw rows of")
    for load in target.loads:
        load.resolve = load.manager.for_user


def not_given_back(target):
    """A borrower forgets a connection."""
    threads = target.loads[0]
    user = target.setup.users[0]
    target.kept = (pool := threads.manager.get_pool(user, {"user": user, "token": target.setup.tokens[user]})).getconn()
    target.kept_from = pool


def beside_the_budget(target):
    """A pool outside of the budget."""
    config = target.setup.lake.config(target.setup.users[0])
    size = 2 * TINY.budget + 1
    with create_lakebase_pool(config, min_size=size, max_size=size) as pool:
        pool.wait(20)


def away_for_too_long(target):
    """An outage that no timeout covers."""
    with target.setup.lake.refuse():
        with target.strike():
            target.setup.lake.drop_connections()
        seen(target.record, "lost, no connection")


def killed_without_cause(target):
    """Connections end while nothing is said to go wrong."""
    deadline = monotonic() + 20
    while not target.record.violations and monotonic() < deadline:
        target.setup.lake.drop_connections()


def stuck(target):
    """Nothing passes for longer than any timeout."""
    with target.setup.lake.stall():
        target.record.wait_for_all()


def revoked_in_name_only(target):
    """A user that was revoked and still has access."""
    user = target.setup.users[0]
    target.record.revocations[user] = [Revocation(Span(monotonic()), Span(monotonic()))]
    seen(target.record, "though revoked")


def forgotten(target):
    """Answered requests that the database knows nothing of."""
    lake = target.setup.lake
    with psycopg.connect(
        **lake.config(lake.admin_user).connect_kwargs(), password=lake.mint(lake.admin_user)
    ) as connection:
        connection.execute("delete from journal")


PLANTED = {
    "saw rows of": mixed_up,
    "leaked: the threads' pools still have borrowers": not_given_back,
    "over budget": beside_the_budget,
    "lost, no connection": away_for_too_long,
    "nothing had killed it": killed_without_cause,
    "hangs:": stuck,
    "served though revoked": revoked_in_name_only,
    "was answered and is in the database as None": forgotten,
}


@pytest.mark.parametrize("words", PLANTED)
def test_the_proof_fails_where_it_should(spoiled, words):
    plant = PLANTED[words]
    run = Run(spoiled, TINY)
    outcome = run.go({plant.__name__: plant})
    if hasattr(run.target, "kept"):
        run.target.kept_from.putconn(run.target.kept)
        assert any("after closing" in each for each in outcome.violations)
    assert [each for each in outcome.violations if words in each]
    assert "NOT PROVEN" in outcome.text()
