"""
Objects that are dear to make and not safe to share, in two pools under separate keys of one container.

A compiled index answers searches, a scratch buffer is filled and wiped: each thread has its own while it works, and a
few of each serve many threads.

    python examples/cpu_objects.py
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from dependency_injector import providers

from pooling import create_pooled_binding_factory, di

INDEX = "services.pooling.index"
BUFFER = "services.pooling.buffer"


class Index:
    """A search index with a cursor: quick to ask, slow to build, one user at a time."""

    def __init__(self, words: list[str]) -> None:
        self.pattern = re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)))
        self.position = 0

    def search(self, text: str) -> list[str]:
        self.position = 0
        found = []
        while match := self.pattern.search(text, self.position):
            found.append(match[0])
            self.position = match.end()
        return found


class Buffer:
    """A scratch area that is used again."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def release(self) -> None:
        """Called by the pool before the next user has it, so that no user sees what another has written."""
        self.data[:] = bytes(len(self.data))


class Search:
    """A service that has both."""

    def __init__(self, index: Index, buffer: Buffer) -> None:
        self.index = index
        self.buffer = buffer

    def count(self, text: str) -> int:
        assert not any(self.buffer.data)
        for number, word in enumerate(self.index.search(text)):
            self.buffer.data[number % len(self.buffer.data)] = len(word)
        return sum(map(bool, self.buffer.data))


class App(di.Container):
    words = providers.Object(["pool", "resource", "request", "thread"])
    index_member = providers.Factory(Index, words)
    buffer_member = providers.Factory(Buffer, 64)


def build() -> App:
    """The container with both pools bound and configured, as a plug-in would do it."""
    app = App()
    app.bind(INDEX, di.Pool(create_pooled_binding_factory("index_member")))
    app.bind(BUFFER, di.Pool(create_pooled_binding_factory("buffer_member")))
    app.configure(INDEX, max_size=2)
    app.configure(BUFFER, max_size=2)
    index, buffer = di.Pooled(app.find(INDEX)), di.Pooled(app.find(BUFFER))
    app.bind("services.search", di.Factory(Search, index, buffer))
    return app


@di.task(App)
@di.inject
def count(text: str, search: Search = di.Inject[App, "services.search"]) -> int:
    return search.count(text)


def main() -> None:
    app = build()
    texts = ["a pool of resources", "one request, one thread", "nothing to see"] * 20
    with app.running(), ThreadPoolExecutor(8) as threads:
        print(sum(threads.map(count, texts)), "words found")
        for key in (INDEX, BUFFER):
            stats = app.get(key).stats()
            print(f"{key}: {stats.acquired} uses of {stats.created} object(s)")


if __name__ == "__main__":
    main()
