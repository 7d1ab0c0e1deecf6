"""The least recently used keys."""

from __future__ import annotations

from typing import Any

from pooling._engine.lru import SLACK, Entry, LeastRecentlyUsed


class Keys:
    """A map of keys, and the order of their use."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry[Any]] = {}
        self.lru = LeastRecentlyUsed(self.entries)

    def add(self, key: str, touched: float) -> Entry[Any]:
        entry = self.entries[key] = Entry(key, None, None, touched)
        self.lru.add(entry)
        return entry

    def take(self, **options: float) -> list[str]:
        return [entry.key for entry in self.lru.take(lambda _: True, **options)]


def test_keys_are_taken_in_the_order_of_their_last_use():
    keys = Keys()
    first = keys.add("first", 1.0)
    keys.add("second", 2.0)
    keys.add("third", 3.0)
    first.touched = 4.0
    assert keys.take(before=2.5) == ["second"]
    assert keys.take() == ["third", "first"]


def test_a_key_that_was_removed_and_came_again_is_taken_once_and_at_its_own_time():
    keys = Keys()
    keys.add("again", 1.0)
    del keys.entries["again"]
    keys.add("other", 2.0)
    keys.add("again", 3.0)
    assert keys.take() == ["other", "again"]


def test_a_key_that_comes_and_goes_takes_no_more_room():
    keys = Keys()
    for number in range(10 * SLACK):
        keys.add("again", float(number))
    assert len(keys.lru) <= SLACK + 3
