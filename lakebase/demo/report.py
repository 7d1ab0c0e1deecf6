"""The report of the demo: what was counted, which checks held, and how that is shown in rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Check", "Report", "UserReport"]

_SHOWN_FAILURES = 5


@dataclass
class UserReport:
    """
    One user's requests, as the client saw them and as the servers counted them.

    Attributes:
        user: The name, which is also the role.
        answered: Requests that were answered as expected, by request id.
        refused: Those of them that the app refused, as expected, and undid.
        rows: Rows in answers.
        foreign: Rows of other users in answers.
        written: Notes that were acknowledged.
        connections: Logins that the gateway counted.
        minted: Credentials that the workspace counted.
        tokens: Workspace tokens that the user had.
    """

    user: str
    answered: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    rows: int = 0
    foreign: int = 0
    written: int = 0
    connections: int = 0
    minted: int = 0
    tokens: int = 1


@dataclass(frozen=True)
class Check:
    """A claim about the run, and whether it holds."""

    claim: str
    holds: bool
    detail: str = ""


@dataclass
class Report:
    """
    The whole run.

    Attributes:
        users: In the order of their names.
        requests: Requests to send.
        asked: Requests that were sent.
        failures: A line for each request that failed.
        latencies: Seconds from request to answer.
        at_once: Most requests under way at once.
        seconds: From the first request to the last answer.
        total: Seconds for everything.
        pools: Pools that were open at the end, the app's own included.
        threads: Most threads of the process at once.
        threads_before: Threads before the first request.
        peak: Most connections at once, as the gateway counted.
        budget: `max_total` of the users' pools.
        allowed: The budget and the connections of the app itself and of the dataset.
        app_connections, app_minted: As for a user.
        app_roles: The roles under which the app itself connected.
        rotation_problem, stop_problem: What went wrong when the token was rotated or the app was stopped, if anything.
        checks: The checks, in the order in which they are shown.
    """

    users: list[UserReport] = field(default_factory=list)
    requests: int = 0
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    at_once: int = 0
    seconds: float = 0.0
    total: float = 0.0
    pools: int = 0
    threads: int = 0
    threads_before: int = 0
    peak: int = 0
    budget: int = 0
    allowed: int = 0
    app_connections: int = 0
    app_minted: int = 0
    app_roles: set[str] = field(default_factory=set)
    rotation_problem: str = ""
    stop_problem: str = ""
    checks: list[Check] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing failed and every check held."""
        return bool(self.checks) and not self.failures and all(check.holds for check in self.checks)

    def check(self, claim: str, wrong: object = (), detail: str = "") -> None:
        """Add a check: it holds unless `wrong` says what is wrong."""
        self.checks.append(Check(claim, not wrong, str(wrong) if wrong else detail))

    def table(self) -> Iterator[tuple[str, ...]]:
        """Rows of the table of users; the first one is the heading."""
        yield "user", "requests", "rows seen", "of others", "connections", "credentials"
        for user in self.users:
            numbers = (len(user.answered), user.rows, user.foreign, user.connections, user.minted)
            yield user.user, *(f"{number:,}" for number in numbers)
        yield "(the app itself)", "2", "-", "-", f"{self.app_connections:,}", f"{self.app_minted:,}"

    def facts(self) -> Iterator[tuple[str, str]]:
        """The other numbers, by name."""
        yield "pools", f"{self.pools} (one for each user, one for the app)"
        others = self.allowed - self.budget
        yield "connections", f"{self.peak} at once at most, of {self.budget} for users and {others} for others"
        yield "threads", f"{self.threads} at most, {self.threads_before} of them before the first request"
        yield "errors", f"{len(self.failures)}"
        if self.latencies:
            ordered = sorted(self.latencies)
            p50, p95 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.95))
            rate = self.asked / self.seconds
            yield "speed", f"{rate:,.0f} requests/s; client, app and gateway share one process"
            yield (
                "answers",
                f"half within {p50:.0f} ms, 95 % within {p95:.0f} ms, of up to {self.at_once} requests at once",
            )
        yield "time", f"{self.total:.1f} s, {self.seconds:.1f} s of it for the requests"

    def shown_failures(self) -> Iterator[str]:
        """The first few."""
        yield from self.failures[:_SHOWN_FAILURES]
        if len(self.failures) > _SHOWN_FAILURES:
            yield f"and {len(self.failures) - _SHOWN_FAILURES} more"
