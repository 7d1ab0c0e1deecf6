"""What the page shows in place of users' keys, and of what a path or a task's name may hold."""

from __future__ import annotations

import re
from typing import Any

from ... import telemetry

__all__ = ["Masking"]

# A word that a programmer wrote, such as `notes`, `api-v2`, `Task-7` or a number; no address, id or token.
_PLAIN = re.compile(r"[A-Za-z_.-]{1,24}|[a-z]{0,12}[-_]?v?[0-9]{1,6}|Task-[0-9]+|\{[A-Za-z_:]+\}")
_MOST_LABELS = 50_000


class Masking:
    """
    Labels for keys, requests and tasks.

    Args:
        show_keys: Whether all is shown as it is. Otherwise a key is shown as its hash, the one that metrics have, and
            of a request's path only plain words and short numbers.
    """

    def __init__(self, *, show_keys: bool) -> None:
        self.show_keys = show_keys
        self._labels: dict[Any, str] = {}

    def label(self, key: Any) -> str:
        """The key's label."""
        found = self._labels.get(key)
        if found is None:
            if len(self._labels) >= _MOST_LABELS:
                self._labels.clear()
            found = self._labels[key] = str(key) if self.show_keys else telemetry.hashed(key)
        return found

    def name(self, name: str | None) -> str:
        """The name of a request, a task or a thread, with `…` for each part that may be data."""
        if not name or self.show_keys:
            return name or ""
        path = name.partition("?")[0]
        return " ".join("/".join(map(_masked, word.split("/"))) for word in path.split(" "))


def _masked(word: str) -> str:
    bare = word.strip("'\"()<>")
    return word if not bare or _PLAIN.fullmatch(bare) else "…"
