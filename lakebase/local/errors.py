"""Errors of the local Lakebase itself, as opposed to those that it shows to clients."""

from __future__ import annotations

__all__ = ["LocalLakebaseError"]


class LocalLakebaseError(Exception):
    """The local Lakebase cannot start or cannot do what it was asked to do; the message says what to try."""
