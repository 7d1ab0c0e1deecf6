"""The threads for background work: no job waits for the end of another one."""

from __future__ import annotations

import threading

from pooling._backends import threads
from tests.contract.harness import LIMIT

STAYS = 3600.0  # seconds; tells the wait of an idle worker from other waits


def test_a_worker_that_is_called_late_is_not_called_for_its_next_job_too(monkeypatch):
    # It has been idle for long, gets a job at that very moment, and runs it before the thread that gave it the job goes
    # on to wake it. A worker woken by that later would list itself as idle twice, and get two jobs at once.
    is_idle, is_assigned, has_begun, is_called, is_over = (threading.Event() for _ in range(5))
    woken = []

    class Latch(threads.Latch):
        def wait(self, seconds):
            if seconds != STAYS:
                return super().wait(seconds)
            if not is_idle.is_set():
                is_idle.set()
                assert is_assigned.wait(LIMIT)
            else:
                woken.append(super().wait(0.0))
                is_over.set()
            return False

        def open(self):
            by_submitter = threading.current_thread() is threading.main_thread()
            if by_submitter:
                is_assigned.set()
                assert has_begun.wait(LIMIT)
            super().open()
            if by_submitter:
                is_called.set()

    def job():
        has_begun.set()
        assert is_called.wait(LIMIT)

    monkeypatch.setattr(threads, "Latch", Latch)
    workers = threads.Workers(STAYS)
    workers.submit(lambda: None)
    assert is_idle.wait(LIMIT)
    workers.submit(job)
    assert is_over.wait(LIMIT)
    assert woken == [False]
