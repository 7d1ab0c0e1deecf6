"""The checks of the demo: what the servers counted, compared with what the clients saw."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from lakebase.local import LocalLakebaseError

from .dataset import ROWS

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from lakebase.local import LocalLakebase, LocalStats

    from .dataset import Dataset
    from .report import Report, UserReport

__all__ = ["check_everything"]

# Seconds for connections to end after their pools were closed.
_CLOSE_TIMEOUT = 5.0


def check_everything(report: Report, lake: LocalLakebase, dataset: Dataset) -> None:
    """Add to the report what the servers counted, and every check. Blocks."""
    still_connected = _find_connected(lake, (*(user.user for user in report.users), lake.client_id))
    stats = lake.stats()
    _add_counts(report, lake, stats)
    _check_answers(report)
    _check_database(report, dataset.visits(), dataset.notes())
    _check_logins(report, lake)
    _check_connections(report, still_connected)


def _find_connected(lake: LocalLakebase, roles: Iterable[str]) -> list[str]:
    """The roles that have connections open, and keep them."""
    found = []
    deadline = monotonic() + _CLOSE_TIMEOUT
    for role in roles:
        try:
            lake.wait_for_connections(0, role, timeout=max(deadline - monotonic(), 0.01))
        except LocalLakebaseError:
            found.append(role)
    return found


def _add_counts(report: Report, lake: LocalLakebase, stats: LocalStats) -> None:
    for user in report.users:
        counted = stats.user(user.user)
        user.connections, user.minted = counted.total, counted.minted
    app = stats.user(lake.client_id)
    report.app_connections, report.app_minted, report.peak = app.total, app.minted, stats.peak


def _check_answers(report: Report) -> None:
    foreign = sum(user.foreign for user in report.users)
    report.check("no user saw a row of another", foreign and f"{foreign} rows were seen by others than their owner")
    missing = report.requests - sum(len(user.answered) for user in report.users)
    report.check("every request was answered as it should be", missing and f"{missing} were not")


def _check_database(report: Report, visits: dict[str, Counter[str]], notes: dict[str, int]) -> None:
    users = {user.user: user for user in report.users}
    wrong_visits = sum(_count_wrong_visits(user, visits.get(name, {})) for name, user in users.items())
    wrong_visits += sum(len(requests) for role, requests in visits.items() if role not in users)
    report.check(
        "the database saw each request once, as its own user's",
        wrong_visits and f"{wrong_visits} were not committed once by the user who sent them",
    )
    wrong_notes = [name for name, user in users.items() if notes.get(name, 0) != ROWS + user.written]
    report.check(
        "what was acknowledged is there, what was refused left nothing",
        wrong_notes and f"wrong number of notes of {', '.join(wrong_notes)}",
    )
    report.check(
        "row-level security is what kept users apart",
        len(notes) != len(users) and f"the table has rows of {len(notes)} users",
        f"the table's owner sees {sum(notes.values())} rows of {len(notes)} users",
    )


def _count_wrong_visits(user: UserReport, visits: dict[str, int]) -> int:
    """Requests that were answered and not committed exactly once as this user, or committed and not answered."""
    expected = user.answered - user.refused
    return sum(visits.get(request, 0) != (request in expected) for request in expected | visits.keys())


def _check_logins(report: Report, lake: LocalLakebase) -> None:
    strangers = report.app_roles - {lake.client_id}
    report.check("the app's own requests were the app's", strangers and f"they were made as {strangers}")
    report.check("a request in flight outlasted the rotation, the next one logged in anew", report.rotation_problem)
    wasteful = [user.user for user in report.users if user.minted != user.tokens]
    wasteful += ["the app"] * (report.app_minted != 1)
    report.check("one credential was minted for each token", wasteful and f"not so for {', '.join(wasteful)}")


def _check_connections(report: Report, still_connected: list[str]) -> None:
    above = report.peak > report.allowed
    report.check("the budget was kept", above and f"{report.peak} connections at once, above {report.allowed}")
    report.check("a request in flight outlasted the stop", report.stop_problem)
    report.check("no connection was left", still_connected and f"some of {', '.join(still_connected)} are open")
