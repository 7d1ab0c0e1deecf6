"""What a `SharedBudget` needs of a place where processes agree on how many places each has."""

from __future__ import annotations

import random
import time
import uuid
from abc import ABC, abstractmethod

from .._engine.lease_book import Answer, Claim, LeaseBook

__all__ = ["LeaseSession", "LeaseStore", "StoreError"]

PAUSE = 0.002  # seconds, at most, until the second attempt; later ones are further apart
ATTEMPTS = 20  # times that a claim is entered anew since another process was faster


class StoreError(Exception):
    """The store cannot be used: nothing is known about the claim."""


class LeaseSession(ABC):
    """
    What one process has to do with a store. Only `abort` and `abandon` may be called from another thread.

    The methods that are not abstract are for stores that have a use for them.
    """

    #: Whether the store itself sees the end of a process, so that a lease needs no renewal.
    sees_death = False
    #: Whether other processes can ring this one, so that it need not look by itself what they need.
    can_hear = False

    @abstractmethod
    def exchange(self, claim: Claim) -> Answer | None:
        """
        Enter a claim; returns the answer, or `None` if a later claim of this process came before. Blocks.

        Raises:
            Exception: The store could not be reached; the claim may have been entered or not. The session can still be
                used.
        """

    def bell(self) -> int | None:
        """A file descriptor that can be read once another process rings; `None` if none can."""
        return None

    def hear(self) -> bool:
        """Read what is there at `bell`; whether another process has rung. Does not block."""
        return False

    def abort(self) -> None:  # noqa: B027
        """End an `exchange` that hangs in another thread. Does not block."""

    def close(self) -> None:  # noqa: B027
        """Let go of what it uses. Called when the process has no place any more."""

    def abandon(self) -> None:  # noqa: B027
        """In a forked child: close what was inherited, without a word to the store."""


class LeaseStore(ABC):
    """
    Where processes agree on how many places each has: `FileLeases`, `RedisLeases`, `PostgresLeases`, `RayLeases`.

    A budget can be sent to another process if its store can be pickled.
    """

    @abstractmethod
    def open(self, holder: str, budget: str) -> LeaseSession:
        """
        Begin to work with the store; does not reach it yet.

        Args:
            holder: The name of this process in the store.
            budget: The name of the limit: one store may have several.
        """


class DocumentSession(LeaseSession):
    """A session with a store that keeps the book as one text, and replaces it if nobody else has meanwhile."""

    @abstractmethod
    def load(self) -> tuple[str | None, str | None, float, float]:
        """
        Read the book.

        Returns:
            The version and the text, `None` if there is none; the store's clock in seconds; and for how many seconds it
            cannot have lost a book.
        """

    @abstractmethod
    def swap(self, version: str | None, new_version: str, text: str, ring: tuple[str, ...]) -> bool:
        """Replace the book of this version, and ring; whether it was still of this version."""

    def exchange(self, claim: Claim) -> Answer | None:
        for attempt in range(ATTEMPTS):
            version, text, now, up = self.load()
            # Of a book that was lost longer ago than a ttl no lease goes on.
            book = LeaseBook(is_new=up >= claim.ttl) if text is None else LeaseBook.loads(text)
            answer = book.exchange(claim, now)
            if answer is None:
                return None
            if self.swap(version, uuid.uuid4().hex, book.dumps(), answer.ring):
                return answer
            time.sleep(random.random() * PAUSE * (attempt + 1))  # noqa: S311 - so that not all try at once
        raise StoreError(f"{ATTEMPTS} times in a row another process was faster")
