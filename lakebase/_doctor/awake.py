"""
What keeps the compute from being suspended: sessions and their last statements, by program.

A compute is suspended after some time without a statement. Its sessions are in `pg_stat_activity`; of those of other
roles, a role without `pg_read_all_stats` sees the program, and neither what it does nor of what kind it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .facts import Facts, skipped
from .finding import Finding, Fix, Verdict
from .statements import as_sql, idle_in_transaction_timeout

__all__ = ["Sessions", "check_awake", "judged"]

_NAME = "kept awake"
_SESSIONS = """
SELECT coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''), usename = current_user,
       count(*), extract(epoch FROM clock_timestamp() - max(greatest(query_start, state_change)))::float8,
       extract(epoch FROM clock_timestamp() - min(state_change))::float8,
       extract(epoch FROM clock_timestamp() - min(backend_start))::float8,
       coalesce(bool_and(query ~* '^\\s*(select\\s+1)?\\s*;?\\s*$') FILTER (WHERE state = 'idle'), false)
FROM pg_stat_activity
WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usename IS NOT NULL AND pid <> pg_backend_pid()
  -- The session with which a local Lakebase looks after its own Postgres.
  AND NOT (usename = 'postgres' AND coalesce(application_name, '') = 'local Lakebase')
GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC, 6 NULLS LAST
"""
_UP = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
_IN_TRANSACTION = 60.0
_LONG = 3600.0
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Sessions:
    """Those of one role and program in the same state. Times are in seconds; `None` is one that is not shown."""

    role: str
    program: str
    state: str
    is_own: bool
    count: int
    last_statement: float | None
    in_state: float | None
    oldest: float | None
    only_pings: bool

    def __str__(self) -> str:
        many = "1 session" if self.count == 1 else f"{self.count} sessions"
        program = repr(self.program) if self.program else "a program without a name (set PGAPPNAME)"
        if not self.state:
            return f"{program} of {self.role or 'another role'}: {many}, whose state this role may not see"
        last = "" if self.last_statement is None else f", last statement {_ago(self.last_statement)} ago"
        since = "" if self.oldest is None else f", the oldest open for {_ago(self.oldest)}"
        pings = ", which was a ping" if self.only_pings else ""
        return f"{program} of {self.role}: {many} {self.state}{last}{pings}{since}"


def check_awake(facts: Facts) -> Finding:
    """Which programs have used the compute lately, and which sessions never end."""
    if facts.connection is None:
        return skipped(_NAME, "login")
    (up,) = facts.connection.execute(_UP).fetchone()
    sessions = [Sessions(*row) for row in facts.connection.execute(_SESSIONS)]
    return judged(sessions, up, None if facts.endpoint is None else facts.endpoint.suspend_after)


def judged(sessions: Sequence[Sessions], up: float, suspend_after: float | None) -> Finding:
    """
    What sessions mean for the compute.

    Args:
        sessions: All but the doctor's own.
        up: Seconds since the server started.
        suspend_after: Seconds without use until it is suspended; `None` if it is not, or not known.
    """
    details = [*map(str, sessions[:_SHOWN])]
    if len(sessions) > _SHOWN:
        details.append(f"… and {len(sessions) - _SHOWN} more")
    found = f"the server has been up for {_ago(up)}"
    if not sessions:
        return Finding(_NAME, Verdict.OK, f"{found}; no other session")
    stuck = [each for each in sessions if _is_stuck(each)]
    if stuck:
        found += f"; {_counted(stuck)} in a transaction or a statement for {_ago(max(map(_age, stuck)))}"
        advice = "find where the program leaves it open; until then, let the server end it"
        return Finding(_NAME, Verdict.WARNING, found, advice, _timeouts(stuck), tuple(details))
    recent = [each for each in sessions if _is_recent(each, suspend_after)]
    if recent and suspend_after:
        found += f"; within the {suspend_after:g} s after which it would be suspended, {_counted(recent)} used it"
        return Finding(_NAME, Verdict.NOTE, found, _advice(recent), details=tuple(details))
    return Finding(_NAME, Verdict.OK, f"{found}; {_counted(sessions)} besides this one", details=tuple(details))


def _is_stuck(sessions: Sessions) -> bool:
    if sessions.state.startswith("idle in transaction"):
        return _age(sessions) > _IN_TRANSACTION
    return sessions.state == "active" and _age(sessions) > _LONG


def _age(sessions: Sessions) -> float:
    return sessions.in_state or 0.0


def _is_recent(sessions: Sessions, within: float | None) -> bool:
    if sessions.state == "active":
        return True
    return sessions.last_statement is not None and within is not None and sessions.last_statement < within


def _advice(sessions: Sequence[Sessions]) -> str:
    if any(each.only_pings for each in sessions):
        return (
            "a pool that pings its idle connections keeps the compute awake: switch the ping off (pool_pre_ping, a "
            "health check that queries), or ask only connections that were idle for long: validate_on_acquire=60"
        )
    return "if that is more than users did: look for jobs and health checks that query"


def _timeouts(sessions: Sequence[Sessions]) -> tuple[Fix, ...]:
    roles = sorted({each.role for each in sessions if each.role and each.state.startswith("idle in transaction")})
    if not roles:
        return ()
    return (
        as_sql([idle_in_transaction_timeout(role, 5) for role in roles], "as that role, or one that may create roles"),
        Fix("python", "LakebasePoolConfig(..., idle_in_transaction_timeout=300)", "or in the app's configuration"),
    )


def _counted(sessions: Sequence[Sessions]) -> str:
    count = sum(each.count for each in sessions)
    return "1 session" if count == 1 else f"{count} sessions"


def _ago(seconds: float) -> str:
    """A time that a person can take in."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return re.sub(r"\.0\b", "", f"{seconds / size:.1f} {unit}")
    return f"{max(0.0, seconds):.0f} s"
