"""The ids that resources have in the workspace, for things that have names in Postgres."""

from __future__ import annotations

import hashlib
import re

from .answers import ApiError

__all__ = ["ResourceIds"]

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


class ResourceIds:
    """
    The id of each name: one that a client chose when it created the thing, else one that follows from the name.

    Chosen ids are not kept from one run to the next.
    """

    def __init__(self) -> None:
        self._chosen: dict[str, str] = {}

    def id_of(self, name: str) -> str:
        """The id of that name."""
        return self._chosen.get(name) or _usual_id(name)

    def claim(self, chosen: str | None, name: str) -> str:
        """
        The id of a new thing of that name.

        Raises:
            ApiError: Another thing has it.
            ValueError: It cannot be an id.
        """
        if not chosen:
            return _usual_id(name)
        if not _ID.fullmatch(chosen):
            raise ValueError("an id must be 1 to 63 lower-case letters, digits and hyphens, first a letter")
        if any(other != name and used == chosen for other, used in self._chosen.items()):
            raise ApiError(409, "ALREADY_EXISTS", f"{chosen!r} is in use")
        self._chosen[name] = chosen
        return chosen

    def forget(self, name: str) -> None:
        """Give the id of that name back."""
        self._chosen.pop(name, None)


def _usual_id(name: str) -> str:
    if _ID.fullmatch(name):
        return name
    # Two names that differ in other characters alone have two ids.
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
    return f"{'r-' if not plain[:1].isalpha() else ''}{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
