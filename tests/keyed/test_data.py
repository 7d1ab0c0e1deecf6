"""The `data` that a user attaches to the keys of a keyed pool."""

from __future__ import annotations

import pytest

from pooling import AsyncKeyedPoolingService, KeyedPoolingService, PoolExhaustedError
from tests.contract.harness import on_both
from tests.contract.workshop import Clock
from tests.keyed.drivers import keyed

KINDS = [KeyedPoolingService, AsyncKeyedPoolingService]


@pytest.mark.parametrize("kind", KINDS)
def test_data_belongs_to_the_key_it_was_opened_with(kind):
    pool = kind(lambda key: object)
    opened = pool.open_key("ann", object, data="hers")
    assert pool.open_key("ann", object, data="another") is opened
    pool.pool("bob")
    assert (pool.key_data("ann"), pool.key_data("bob"), pool.key_data("carl")) == ("hers", None, None)
    assert pool.all_data() == {"ann": "hers", "bob": None}
    assert "carl" not in pool
    pool.close_key("ann")
    assert pool.key_data("ann") is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_that_is_made_has_no_key_until_it_is_added(kind):
    pool = kind()
    made = pool.make_pool("ann", object)
    assert (made.name, len(pool)) == (pool.name, 0)
    assert pool.add_pool("ann", made, data=made) is made
    assert pool.pool("ann") is pool.key_data("ann") is made
    assert pool.add_pool("ann", pool.make_pool("ann", object)) is made


@on_both
async def test_what_a_pool_lends_is_given_back_also_if_it_was_added_under_another_key(side):
    pool = keyed(side)
    pool.service.add_pool(("ann", 1), pool.service.make_pool("ann", object))
    first, second = await pool.acquire(("ann", 1)), await pool.acquire(("ann", 1))
    assert pool.service.is_borrowed(first)
    await pool.release(first)
    pool.service.close_key(("ann", 1))
    await pool.destroy(second)
    await side.until(lambda: pool.budget.used == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_asking_for_data_counts_as_a_use_and_listing_it_does_not(kind):
    clock = Clock()
    pool = kind(max_keys=2, clock=clock)
    for key in ("ann", "bob"):
        pool.open_key(key, object, data=key)
        clock.move(1)
    assert pool.key_data("ann") == "ann"
    clock.move(1)
    assert pool.all_data() == {"ann": "ann", "bob": "bob"}
    pool.open_key("carl", object)
    assert pool.all_data() == {"ann": "ann", "carl": None}


def test_a_key_that_finds_no_room_leaves_no_data():
    pool = KeyedPoolingService(max_keys=1)
    with pool.open_key("ann", object).lease():
        with pytest.raises(PoolExhaustedError):
            pool.open_key("bob", object, data="his")
    assert list(pool.all_data()) == ["ann"]


def test_idle_shows_what_could_be_lent():
    pool = KeyedPoolingService(lambda key: object).pool("ann")
    assert pool.idle == []
    with pool.lease() as value:
        assert pool.idle == []
    assert pool.idle == [value]
    pool.stop()
