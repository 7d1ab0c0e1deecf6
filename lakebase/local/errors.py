"""Errors of the local Lakebase itself; what it shows to clients are a server's words, not these."""

from __future__ import annotations

__all__ = ["LocalLakebaseError"]


class LocalLakebaseError(Exception):
    """The local Lakebase could not be started or do what it was asked; the message says what to try."""
