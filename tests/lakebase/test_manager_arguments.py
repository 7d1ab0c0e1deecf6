"""What a manager refuses when it is made."""

from __future__ import annotations

import pytest

from lakebase import AsyncLakebasePoolManager, ConfigurationError, LakebasePoolManager
from pooling import PoolBudget, PoolObserver

BASE = {"host": "h", "database": "d", "user": "u", "password": "p"}
KINDS = [LakebasePoolManager, AsyncLakebasePoolManager]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_pool": 3}, "did you mean 'max_pools'"),
        ({"max_keys": 3}, "known are max_total, max_pools, max_pool_idle"),
        ({"configur": print}, "did you mean 'configure'"),
        ({"database": "d"}, "give it in the base configuration"),
        ({"conninfo": "host=x"}, "known are max_total"),
        ({"nonsense": 1}, "known are max_total"),
        ({"max_pools": 0}, "max_pools=0: expected"),
        ({"max_pools": 2.5}, "max_pools=2.5: expected"),
        ({"max_pool_idle": -1}, "max_pool_idle=-1: expected"),
        ({"max_pool_idle": "5"}, "max_pool_idle='5': expected"),
        ({"max_total": "50"}, "max_total='50': expected"),
        ({"budget": 50}, "budget=50: expected a PoolBudget; for a number, give max_total="),
        ({"budget": PoolBudget(5, within=PoolBudget(9))}, "give the outermost budget"),
        ({"max_total": 5, "budget": PoolBudget(5)}, "max_total and budget exclude each other"),
        ({"configure": "set role x"}, "configure='set role x': expected a function"),
    ],
)
def test_an_argument_that_cannot_work_is_refused_when_the_manager_is_made(kind, given, words):
    with pytest.raises(ConfigurationError) as refused:
        kind(BASE, **given)
    assert words in str(refused.value)
    assert refused.value.field in given
    assert "max_key" not in str(refused.value).replace("unknown argument 'max_keys'", "")


async def coroutine(conn):
    """What threads would never run."""


@pytest.mark.parametrize("name", ["configure", "check", "reset"])
def test_an_async_callback_is_refused_where_threads_would_call_it(name):
    with pytest.raises(ConfigurationError, match=f"{name}=.* is async"):
        LakebasePoolManager(BASE, **{name: coroutine})
    AsyncLakebasePoolManager(BASE, **{name: coroutine})


@pytest.mark.parametrize("kind", KINDS)
def test_what_belongs_to_each_pool_reaches_it(kind):
    manager = kind(BASE, reconnect_timeout=7.0, max_size=2, leak_timeout=9.0, observer=PoolObserver())
    pool = manager.get_pool("ann")
    assert (pool.reconnect_timeout, pool.max_size) == (7.0, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [None, ""])
def test_a_key_that_is_nobodys_is_refused(kind, key):
    manager = kind(BASE)
    with pytest.raises(ConfigurationError, match="expected the user whose pool it is") as refused:
        manager.get_pool(key)
    assert refused.value.field == "key"
    assert manager.size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_without_a_user_of_its_own_logs_in_as_the_base_configuration_does(kind):
    pool = kind(BASE).get_pool("ann@corp.example")
    assert (pool.config.user, pool.config.password) == ("u", "p")
