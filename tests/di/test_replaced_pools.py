"""A pool that is replaced between its choice and its use costs no request."""

import asyncio

import pytest

from pooling import AsyncPoolingService, PoolClosedError, PoolingService
from pooling.di import Container, Pooled


class Replaced:
    """Gives out pools of which the first few are closed before anybody can use them."""

    def __init__(self, kind, closed):
        self.kind, self.closed, self.chosen = kind, closed, 0
        self.last = kind(dict, max_size=1)

    def choose(self):
        self.chosen += 1
        if self.chosen > self.closed:
            return self.last
        pool = self.kind(dict, max_size=1)
        stopping = pool.stop()
        if stopping is not None:  # the end of a pool that was never started does not suspend
            with pytest.raises(StopIteration):
                stopping.send(None)
        return pool


def container(pools):
    class App(Container):
        value = Pooled(pools.choose, select=lambda pool, request: pool)

    return App()


def test_another_is_chosen_in_a_thread():
    pools = Replaced(PoolingService, closed=2)
    app = container(pools)
    with app.request():
        assert pools.last.is_borrowed(app.value())
    assert (pools.chosen, pools.last.borrowed) == (3, 0)


async def test_another_is_chosen_in_a_loop():
    pools = Replaced(AsyncPoolingService, closed=2)
    app = container(pools)
    async with app.request():
        assert pools.last.is_borrowed(await app.value.aget())
        assert pools.last.is_borrowed(app.value())
    assert (pools.chosen, pools.last.borrowed) == (3, 0)


async def test_a_pool_that_is_closed_for_good_is_told_so():
    pools = Replaced(AsyncPoolingService, closed=0)
    app = container(pools)
    async with asyncio.timeout(5):
        await pools.last.stop()
        async with app.request():
            with pytest.raises(PoolClosedError):
                await app.value.aget()
