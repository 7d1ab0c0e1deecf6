"""gevent puts its own locks in the place of Python's, after a fork and long after the package was imported."""

from __future__ import annotations

from tests.platform.programs import run


def test_the_timer_waits_for_a_lock_of_the_kind_there_is_when_its_thread_starts():
    outcome = run("""
        import threading
        import pooling

        real, made = threading.Lock, []

        class Patched:
            def __init__(self):
                self._lock = real()
                made.append(self)

            def acquire(self, *args, **kwargs):
                self.was_waited_for = kwargs.get("timeout", -1) > 0
                return self._lock.acquire(*args, **kwargs)

            def __getattr__(self, name):
                return getattr(self._lock, name)

            def __enter__(self):
                self._lock.acquire()

            def __exit__(self, *_):
                self._lock.release()

        threading.Lock = Patched
        for _ in range(2):  # its thread waits between the two
            rings = threading.Event()
            pooling._backends.threads.shared.timer.at(0.0, rings.set)
            assert rings.wait(30)
        print(any(getattr(lock, "was_waited_for", False) for lock in made))
    """)
    assert (outcome.status, outcome.out, outcome.err) == (0, "True\n", "")
