"""`Managed`: one object per container, and what is called at its start and stop."""

from __future__ import annotations

import asyncio

import pytest
from dependency_injector import providers

from pooling import ConfigurationError, di

LOG: list[str] = []


@pytest.fixture(autouse=True)
def log():
    LOG.clear()
    return LOG


class Part:
    """A service that records its life."""

    def __init__(self, name):
        self.name = name

    def start(self):
        LOG.append(f"start {self.name}")

    def stop(self):
        LOG.append(f"stop {self.name}")


def test_a_managed_service_names_what_to_call_and_is_one_object(log):
    class Client:
        def open(self):
            LOG.append("open")

        def close_all(self):
            LOG.append("close")

    class Named(di.Container):
        client = di.Managed(Client, start="open", stop="close_all")
        other = di.Managed(providers.Factory(Client), start=None, stop=lambda made: LOG.append(type(made).__name__))

    app = Named()
    with app.running():
        assert app.client() is app.client()
    assert log == ["open", "Client", "close"]

    class Wrong(di.Container):
        client = di.Managed(Client, start="begin")

    with pytest.raises(ConfigurationError, match=r"start='begin' names no method of .*Client"):
        Wrong().start()


async def test_a_managed_service_can_be_made_by_a_coroutine_function(log):
    async def connect(url):
        await asyncio.sleep(0)
        return Part(url)

    class Connected(di.Container):
        client = di.Managed(connect, "db")

    app = Connected()
    with pytest.raises(ConfigurationError, match="start the container with astart"):
        app.start()
    async with app.running():
        assert app.client().name == "db"
    assert log == ["start db", "stop db"]


async def test_a_function_given_as_a_step_may_be_a_coroutine_function_or_block(log):
    async def close(part):
        await asyncio.sleep(0)
        LOG.append(f"close {part.name}")

    class Stepped(di.Container):
        first = di.Managed(Part, "first", start=None, stop=close)
        second = di.Managed(Part, "second", start=Part.start, stop=None)

    async with Stepped().running():
        assert log == ["start second"]
    assert log == ["start second", "close first"]


async def test_a_managed_that_makes_nothing_says_so():
    async def make_later():
        pass

    class Empty(di.Container):
        nothing = di.Managed(lambda: None)

    class EmptyLater(di.Container):
        nothing = di.Managed(make_later)

    with pytest.raises(ConfigurationError, match=r"'nothing' has made nothing: .* returned None"):
        Empty().start()
    with pytest.raises(ConfigurationError, match="'nothing' has made nothing"):
        await EmptyLater().astart()
