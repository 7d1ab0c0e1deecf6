"""Pools of connections of a real Postgres under signals: none stays lost, and none has two holders."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from lakebase import LakebasePool, LakebasePoolManager
from pooling._engine.audit import AUDIT_EVERY
from tests.dropin.parts import dsn
from tests.live.manager_parts import users

from .signals import KINDS, MARKS, Clock, Signals

pytest.importorskip("trustme", reason="a local Lakebase needs the extra 'local'")

pytestmark = MARKS
SIGNALS = int(os.environ.get("INTERRUPTS", "80"))
LIMIT = 20.0  # seconds until a test gives up that is not about time
SIZE = 2


class User:
    """Uses a pool, and gives back what it knows it has when it was interrupted."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.held: Any = None

    # The interpreter looks at signals after a call with a `*`, before it keeps the result: so there is none here.
    def getconn_and_putconn(self) -> None:
        self.held = self.pool.getconn(timeout=LIMIT)
        assert not self.held.closed
        self.pool.putconn(self.held)
        self.held = None

    def putconn_in_a_transaction(self) -> None:
        self.held = self.pool.getconn(timeout=LIMIT)
        self.held.execute("select 1")
        self.pool.putconn(self.held)
        self.held = None

    def connection(self) -> None:
        with self.pool.connection(timeout=LIMIT) as conn:
            assert not conn.closed

    def query(self) -> None:
        with self.pool.connection(timeout=LIMIT) as conn:
            conn.execute("select 1")

    def give_back(self) -> None:
        if self.held is not None and self.pool.service.is_borrowed(self.held):
            self.pool.putconn(self.held)
        self.held = None


def is_whole(pool: Any) -> None:
    """Make sure that the whole capacity is there, and that all of it is good."""
    conns = [pool.getconn(timeout=LIMIT) for _ in range(SIZE)]
    assert len({conn.info.backend_pid for conn in conns}) == SIZE, "a connection with two holders"
    assert not any(conn.closed for conn in conns)
    for conn in conns:
        assert conn.execute("select 1").fetchone() == (1,)
        conn.rollback()
        pool.putconn(conn)


def catch_up(pools: list[Any], clock: Clock) -> None:
    """Let two audits pass: lost connections are closed."""
    for _ in range(2):
        clock.ahead += AUDIT_EVERY
        for pool in pools:
            pool.service.sweep()


@pytest.fixture
def pool(lakebase_local):
    clock = Clock()
    pool = LakebasePool(dsn(lakebase_local), min_size=0, max_size=SIZE, clock=clock, max_lifetime=1e9, max_idle=1e9)
    pool.clock = clock
    yield pool
    pool.close()


USES = ["getconn_and_putconn", "putconn_in_a_transaction", "connection", "query"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", USES)
def test_after_a_signal_at_any_bytecode_all_connections_can_be_had(pool, use, kind):
    with Signals(kind) as signals:
        while signals.raised < SIGNALS:
            user = User(pool)
            signals.interrupt(getattr(user, use))
            user.give_back()
            del user
            catch_up([pool], pool.clock)
            is_whole(pool)
    assert pool.service.borrowed == 0
    assert pool.service.size <= SIZE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["connection", "getconn_and_putconn"])
def test_after_a_signal_at_any_bytecode_every_user_of_a_manager_gets_a_connection(lakebase_local, use, kind):
    names = users(lakebase_local, 2)
    host = {"host": lakebase_local.host, "port": lakebase_local.port, "database": lakebase_local.database}
    base = {**host, "max_size": SIZE, "ssl_mode": "verify-full", "ssl_root_cert": str(lakebase_local.ca_file)}
    manager = LakebasePoolManager(base, max_total=SIZE)

    def pool_of(name: str) -> LakebasePool:
        return manager.get_pool(name, {"user": name, "password": f"password of {name}"})

    with Signals(kind) as signals:
        while signals.raised < SIGNALS // 10:
            name = names[signals.raised % 2]
            user = User(pool_of(name))
            signals.interrupt(getattr(user, use))
            user.give_back()
            del user
            # No clock is put forward: the budget looks for what was lost, while the other user waits.
            for name in names:
                began = time.monotonic()
                is_whole(pool_of(name))
                assert time.monotonic() - began < LIMIT / 2
    manager.close_all()
    assert manager.stats().connections == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["connection", "query"])
def test_a_lost_connection_is_replaced_while_a_borrower_waits(lakebase_local, use, kind):
    """No clock is put forward here: the pool looks by itself."""
    pool = LakebasePool(dsn(lakebase_local), min_size=0, max_size=SIZE)
    with Signals(kind) as signals:
        while signals.raised < SIGNALS // 10:
            signals.interrupt(getattr(User(pool), use))
            is_whole(pool)
    pool.close()
    assert pool.service.borrowed == 0
