"""The alarm of a pool, where other threads come in between."""

from __future__ import annotations

from pooling._engine.call_site import Borrower
from pooling._engine.engine import Engine
from pooling._engine.hooks import Hooks
from pooling.factory import as_factory
from pooling.options import PoolingServiceOptions

from .fake_backend import FakeBackend


def test_an_alarm_that_is_ringing_is_not_set_again():
    backend = FakeBackend()
    engine = Engine(Hooks(as_factory(object)), PoolingServiceOptions(max_idle=1.0), backend, name="orders")
    value = backend.run(engine.take(None, None, 0, Borrower(None, 0, None, None, None)))
    backend.run(engine.give_back(value, None))

    class Contended:
        """A lock before which another thread changes the pool."""

        def __enter__(self):
            engine.arm()

        def __exit__(self, *_):
            pass

    backend.lock = Contended()
    [(when, _, ring)] = backend.timers
    backend.time = when
    backend.timers.clear()
    ring()
    assert [later > when for later, *_ in backend.timers] == [True]
