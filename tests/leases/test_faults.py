"""Redis and Postgres as stores: processes killed and stopped, the store restarted, hanging or out of reach."""

from __future__ import annotations

import signal
import time

import psycopg
import pytest

from lakebase import create_lakebase_pool
from lakebase.local import LocalLakebase
from pooling.leases import PostgresLeases
from tests.leases.conftest import lease_settings
from tests.leases.servers import Proxy, RedisServer, until

LIMIT = 6
TTL = 2.0


@pytest.fixture(params=["redis", "postgres"])
def remote(request):
    """A store, and a proxy in front of it."""
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        server.clear("default")
        with Proxy(server.port) as proxy:
            yield {"redis": server.url}, {"redis": f"redis://127.0.0.1:{proxy.port}?socket_timeout=0.5"}, proxy
    else:
        settings = request.getfixturevalue("postgres")
        with Proxy(settings["port"]) as proxy:
            yield {"postgres": settings}, {"postgres": settings | {"port": proxy.port}}, proxy


def test_the_places_of_a_killed_process_come_back_within_the_ttl(start, counter, remote):
    store, _, _ = remote
    one, other = (start(store, limit=LIMIT, ttl=TTL) for _ in range(2))
    one.do("acquire", count=LIMIT)
    one.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    assert other.do("acquire", count=LIMIT, timeout=20)["held"] == LIMIT
    took = time.monotonic() - killed_at
    assert took >= TTL / 2, "until then they count as used"
    until(lambda: counter.most == LIMIT, "the limit is not reached, or exceeded")


def test_a_process_that_was_stopped_for_longer_opens_nothing_and_closes_what_others_have(start, counter, remote):
    store, _, _ = remote
    one, other = (start(store, limit=LIMIT, ttl=TTL) for _ in range(2))
    one.do("acquire", count=3)
    one.signal(signal.SIGSTOP)
    assert other.do("acquire", count=LIMIT, timeout=20)["held"] == LIMIT
    until(lambda: counter.count == 3 + LIMIT, "the server has not accepted the last one yet")
    most = counter.most
    one.signal(signal.SIGCONT)
    assert one.do("acquire", count=1, timeout=1.0)["held"] == 3
    assert counter.most == most, "it has opened something before it noticed"
    one.do("release", count=3)
    until(lambda: counter.count == LIMIT, "what is above its lease stays open")
    other.do("release", count=LIMIT)
    assert one.do("acquire", count=3)["held"] == 3
    assert counter.count <= LIMIT


def test_a_process_that_cannot_reach_the_store_keeps_what_it_has_until_its_lease_ends(start, counter, remote):
    store, through_proxy, proxy = remote
    one = start(through_proxy, limit=LIMIT, ttl=TTL)
    one.do("acquire", count=4)
    one.do("release", count=3)
    proxy.hold()
    assert one.do("acquire", count=2, timeout=0.2)["held"] == 3, "what it has can be used"
    one.do("release", count=2)
    until(lambda: counter.count <= 1, "idle resources are kept though others may have the places")
    other = start(store, limit=LIMIT, ttl=TTL)
    assert other.do("acquire", count=LIMIT - 1, timeout=20)["held"] == LIMIT - 1
    assert counter.most <= LIMIT
    answer = one.do("acquire", count=1, timeout=0.1)
    assert "cannot be reached" in answer["error"]
    assert len([line for line in answer["log"] if "the store cannot be reached" in line]) == 1
    assert not [line for line in answer["log"] if "lease-pw" in line]
    proxy.go_on()
    other.do("release", count=LIMIT - 1)
    answer = one.do("acquire", count=2, timeout=20)
    assert answer["held"] == 3
    assert [line for line in answer["log"] if "can be reached again" in line]
    assert counter.most <= LIMIT


def test_a_redis_that_restarts_without_its_data_gives_nobodys_places_away(start, counter, tmp_path):
    with RedisServer(tmp_path) as server:
        server.clear("default")
        one, other = (start({"redis": server.url}, limit=LIMIT, ttl=TTL) for _ in range(2))
        one.do("acquire", count=4)
        server.stop()
        assert one.do("release", count=4)["used"] == 4, "what it has is kept"
        server.start()
        assert other.do("acquire", count=5, timeout=20)["held"] == 5
        assert counter.most <= LIMIT
        assert one.do("acquire", count=1, timeout=20)["held"] == 1
        assert counter.most <= LIMIT


def test_a_postgres_that_restarts_or_crashes_has_its_leases_still(start, counter):
    with LocalLakebase(pooler="off") as lake:
        lake.add_password_role("lease_role", "lease-pw")
        with create_lakebase_pool(lake.config(), max_size=1) as owner, owner.connection() as connection:
            connection.execute(PostgresLeases(psycopg.connect).create_sql("lease_role"))
        store = {"postgres": lease_settings(lake)}
        one, other = (start(store, limit=LIMIT, ttl=TTL) for _ in range(2))
        one.do("acquire", count=4)
        for crash in (False, True):
            lake.restart_postgres(crash=crash)
            assert one.do("acquire", count=0)["held"] == 4, "what it has is kept"
            assert other.do("acquire", count=LIMIT - 4, timeout=20)["held"] == LIMIT - 4
            assert other.do("acquire", count=1, timeout=0.1)["held"] == LIMIT - 4
            other.do("release", count=LIMIT - 4)
    assert counter.most <= LIMIT
