"""Who follows creates: each is told how the create ended, whatever another one does."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from pooling import CreateError
from pooling._engine.tracing import FOLLOWERS, Follower
from tests.contract.harness import on_both
from tests.contract.workshop import Workshop


class Recorder(Follower):
    """Notes how each create ended: `None`, or the error."""

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    @contextmanager
    def creating(self, pool, waiting):
        try:
            yield
        except Exception as error:
            self.ends.append(error)
        else:
            self.ends.append(None)


class Broken(Follower):
    """Fails when a create begins or when it ends."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at

    @contextmanager
    def creating(self, pool, waiting):
        if self.fails_at == "begin":
            raise ValueError("a planted failure")
        yield
        raise ValueError("a planted failure")


@pytest.fixture(params=["begin", "end"])
def recorders(request):
    """The recorders before and after a broken follower."""
    followers = [Recorder(), Broken(request.param), Recorder()]
    for follower in followers:
        FOLLOWERS.add(follower)
    yield followers[::2]
    for follower in followers:
        FOLLOWERS.remove(follower)


@on_both
async def test_a_follower_that_fails_is_logged_and_the_others_see_the_create(side, recorders, caplog):
    pool = side.pool(Workshop(side), max_size=1)
    await pool.release(await pool.acquire())
    assert [recorder.ends for recorder in recorders] == [[None], [None]]
    assert "a follower of creates failed" in caplog.text


@on_both
async def test_each_follower_sees_the_error_of_a_create(side, recorders):
    refused = ValueError("the server refuses")

    async def create():
        raise refused

    pool = side.pool(Workshop(side, create=create, plain={"is_final": lambda error: True}), min_size=1)
    with pytest.raises(CreateError):
        await pool.start()
    assert [recorder.ends for recorder in recorders] == [[refused], [refused]]
