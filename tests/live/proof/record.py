"""What happened to every request, and what should not have."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import psycopg

from lakebase import CredentialError, LoginError

# Notes that each user has from the start.
ROWS = 3


@dataclass
class Phase:
    """
    The time from one fault to the next, in numbers.

    Attributes:
        requests: That began in it.
        interrupted: Attempts that lost their connection in mid-query to a kill; each was repeated.
        repeated: Requests that were served after that.
        turned_away: Of revoked users.
        longest_wait: Seconds until an attempt had its connection.
        longest: Seconds until a request was served, with all that it had to repeat.
    """

    name: str
    runs: int = 0
    requests: int = 0
    interrupted: int = 0
    repeated: int = 0
    turned_away: int = 0
    longest_wait: float = 0.0
    longest: float = 0.0

    def add(self, other: Phase) -> None:
        self.runs += 1
        self.requests += other.requests
        self.interrupted += other.interrupted
        self.repeated += other.repeated
        self.turned_away += other.turned_away
        self.longest_wait = max(self.longest_wait, other.longest_wait)
        self.longest = max(self.longest, other.longest)


@dataclass
class Span:
    """From one instant to another, not over as long as `end` is infinite; of some users, or of all."""

    begin: float
    end: float = float("inf")
    users: frozenset[str] | None = None

    def meets(self, begin: float, end: float) -> bool:
        return begin <= self.end and self.begin <= end


@dataclass
class Revocation:
    """While it lasts, a user may be served or turned away; from `in_force` until it begins to end, never served."""

    span: Span
    in_force: Span = field(default_factory=lambda: Span(float("inf")))


class Record:
    """
    Judges each request as it goes, from any thread.

    Args:
        worker_names: The workers; each sends one request at a time.
        patience: Seconds after which a request counts as hanging. More than what a borrower's timeout allows.
    """

    def __init__(self, worker_names: list[str], *, patience: float) -> None:
        self.patience = patience
        self.violations: list[str] = []
        self.answered: dict[str, str] = {}
        self.phases: list[Phase] = [Phase("nothing")]
        self.strikes: list[Span] = []
        self.revocations: dict[str, list[Revocation]] = {}
        self.expiries: list[float] = []  # instants at which every credential died, those minted just then included
        self._finished = dict.fromkeys(worker_names, float("-inf"))
        self._running: dict[str, Request] = {}
        self.changed = threading.Condition()

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[-1]

    def violate(self, text: str) -> None:
        with self.changed:
            self.violations.append(f"[{self.phase.name}] {text}")
            self.changed.notify_all()

    def enter(self, name: str) -> Phase:
        """Begin another phase: requests that begin from now on count to it."""
        with self.changed:
            self.phases.append(Phase(name))
            return self.phases[-1]

    @contextmanager
    def strike(self, users: Iterable[str] | None = None) -> Iterator[None]:
        """Connections of these users, or of all, are being killed in this block, and at no other time."""
        span = Span(monotonic(), users=None if users is None else frozenset(users))
        self.strikes.append(span)
        try:
            yield
        finally:
            span.end = monotonic()

    def was_struck(self, user: str, begin: float, end: float) -> bool:
        """Whether some of the user's connections were being killed at some time in between."""
        return any(
            span.meets(begin, end) for span in reversed(self.strikes) if span.users is None or user in span.users
        )

    def wait_for_all(self) -> None:
        """
        Block until each worker has had an answer to a request that it began from now on.

        A worker without an answer within `patience` seconds hangs, which is a violation.
        """
        now = monotonic()
        with self.changed:
            self.changed.wait_for(lambda: min(self._finished.values()) >= now, self.patience)
            late = {name for name, begun in self._finished.items() if begun < now}
        for name in sorted(late):
            self.violate(f"hangs: {name} with {self._running.get(name)}")

    def began(self, request: Request) -> None:
        with self.changed:
            self._running[request.worker] = request
            self.phase.requests += 1

    def ended(self, request: Request) -> None:
        with self.changed:
            self._running.pop(request.worker, None)
            self._finished[request.worker] = request.begun
            self.changed.notify_all()

    def by_fault(self) -> list[Phase]:
        """The phases, those of one fault added up."""
        total: dict[str, Phase] = {}
        for phase in self.phases:
            total.setdefault(phase.name, Phase(phase.name)).add(phase)
        return list(total.values())


class Request:
    """
    One request of a user's, and what may become of it.

    It is served when its rows were read and its entry is committed. Nothing but a killed connection
    excuses an error once it has a connection; nothing but a revoked token excuses that it gets none.
    """

    def __init__(self, record: Record, worker: str, number: int, user: str, *, is_slow: bool) -> None:
        self.record = record
        self.worker = worker
        self.id = f"{worker}/{number}"
        self.user = user
        self.is_slow = is_slow
        self.begun = self._asked = monotonic()
        self._has_connection = False
        self._repeats = 0
        record.began(self)

    def __repr__(self) -> str:
        doing = "in its query" if self._has_connection else "waiting for a connection"
        return f"<{self.id} of {self.user!r}, {doing} for {monotonic() - self._asked:.1f} s>"

    def asks(self) -> None:
        """It wants a connection, for the first time or again."""
        self._asked = monotonic()
        self._has_connection = False

    def got(self) -> None:
        """It has one."""
        self._has_connection = True
        self._waited()

    def _waited(self) -> None:
        waited = monotonic() - self._asked
        with self.record.changed:
            phase = self.record.phase
            phase.longest_wait = max(phase.longest_wait, waited)

    def saw(self, rows: list[Any]) -> None:
        """What it read: owners, the role that read them, and how many rows each."""
        foreign = sorted({owner for owner, _, _ in rows} - {self.user})
        roles = {role for _, role, _ in rows}
        if foreign or roles != {self.user}:
            self.record.violate(f"{self.id}: {self.user!r} saw rows of {foreign}, as {sorted(roles)}")
        elif sum(count for _, _, count in rows) != ROWS:
            self.record.violate(f"{self.id}: {self.user!r} saw {rows}, not {ROWS} rows")

    def failed(self, error: Exception) -> bool:
        """Whether to send it again; it is over otherwise, and a violation if nothing excuses the error."""
        now = monotonic()
        record = self.record
        if self._has_connection:
            is_lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or (
                # What psycopg makes of a server that ends while it answers.
                isinstance(error, psycopg.InternalError) and "received 2 results" in str(error)
            )
            if is_lost and record.was_struck(self.user, self._asked, now):
                with record.changed:
                    record.phase.interrupted += 1
                self._repeats += 1
                return True
            record.violate(f"{self.id}: failed in its query and nothing had killed it: {_shown(error)}")
        else:
            self._waited()
            if isinstance(error, LoginError) and any(self._asked <= at <= now for at in record.expiries):
                # Its new password died at birth, which happens to no real one: it lives for a while.
                with record.changed:
                    record.phase.interrupted += 1
                self._repeats += 1
                return True
            revoked = record.revocations.get(self.user, ())
            if isinstance(error, (LoginError, CredentialError)) and any(
                each.span.meets(self._asked, now) for each in revoked
            ):
                with record.changed:
                    record.phase.turned_away += 1
            else:
                record.violate(f"{self.id}: lost, no connection: {_shown(error)}")
        record.ended(self)
        return False

    def served(self) -> None:
        """It is over, and its entry is in the database."""
        record = self.record
        now = monotonic()
        with record.changed:
            record.answered[self.id] = self.user
            phase = record.phase
            phase.repeated += self._repeats > 0
            phase.longest = max(phase.longest, now - self.begun)
        revoked = record.revocations.get(self.user, ())
        if any(each.in_force.begin <= self.begun and now <= each.in_force.end for each in revoked):
            record.violate(f"{self.id}: {self.user!r} was served though revoked")
        record.ended(self)


def _shown(error: BaseException) -> str:
    cause = f" <- {_shown(error.__cause__)}" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{cause}"
