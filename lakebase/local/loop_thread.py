"""An event loop that runs in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import LocalLakebaseError

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """
    Runs functions and coroutines on its own loop for callers in other threads.

    The thread is a daemon: a process that forgets to stop it still exits.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.SelectorEventLoop()  # whatever policy the app has set: uvloop's transports differ
        self._spawned: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """The result of a function called on the loop. Blocks until it returns."""

        async def called() -> T:
            return function(*args, **kwargs)

        return self.run(called())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine run on the loop. Blocks until it returns."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise LocalLakebaseError(
                "a local Lakebase cannot be used from its own callbacks: its loop would wait for itself"
            )
        if not self._thread.is_alive():
            coroutine.close()
            raise LocalLakebaseError("the local Lakebase is not running")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop until the coroutine or the loop ends."""
        self.call(lambda: self._spawned.add(self._loop.create_task(coroutine)))

    def stop(self) -> None:
        """Cancel what still runs on the loop, and end the thread. Blocks until then."""
        if self._thread.is_alive():
            self.run(self._cancel_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)  # transports that were closed report it in the next turns of the loop
