"""The faults, one function each. When it returns, the fault is over, or the load has recovered from it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from .load import Load
from .record import Record, Revocation, Span
from .setup import Setup

# Turns of the gateway's loop in which it has passed on to its clients what servers that are gone have left behind.
TURNS = 20


@dataclass
class Target:
    """
    The system that faults are applied to.

    Args:
        outage: Seconds that an outage lasts: the length is the fault's, nothing waits for it to be over.
    """

    setup: Setup
    record: Record
    loads: Sequence[Load]
    outage: float
    dice: random.Random = field(default_factory=random.Random)

    @contextmanager
    def strike(self) -> Iterator[None]:
        """
        Connections are killed in this block; at its end all clients have been told.

        The pooler takes logins while the server behind it is away, and lets their first statement fail. What it
        excuses ends when it serves again: a second after its last failed attempt.
        """
        with self.record.strike(self.setup.pooled):
            with self.record.strike():
                yield
                for _ in range(TURNS):
                    self.setup.lake.stats()
            self.setup.wait_for_pooler(self.record.patience)

    def last(self) -> None:
        """Let the outage last."""
        threading.Event().wait(self.outage)


def nothing(target: Target) -> None:
    """Nothing goes wrong."""


def _expire(target: Target) -> None:
    target.setup.lake.expire_tokens()
    target.record.expiries.append(monotonic())


def tokens_expire(target: Target) -> None:
    """All minted credentials expire; open connections stay, and the next login mints."""
    _expire(target)


def tokens_are_rotated(target: Target) -> None:
    """Each user, one after the other, comes with another workspace token."""
    setup = target.setup
    for user in setup.users:
        setup.tokens[user] = setup.lake.add_user(user)


def users_are_revoked(target: Target) -> None:
    """Some users lose everything they had; the app closes their pools; they get new tokens in the end."""
    setup, record = target.setup, target.record
    users = target.dice.sample(setup.users, 2)
    revocations = {user: Revocation(Span(monotonic())) for user in users}
    for user, revocation in revocations.items():
        record.revocations.setdefault(user, []).append(revocation)
        setup.lake.revoke(user)
        for load in target.loads:
            load.close_user(user)
        revocation.in_force = Span(monotonic())
    with record.changed:
        was_told = record.changed.wait_for(lambda: record.phase.turned_away >= 2, record.patience)
    if not was_told:
        record.violate("no request was turned away")
    for user, revocation in revocations.items():
        revocation.in_force.end = monotonic()
        setup.tokens[user] = setup.lake.add_user(user)
    # Until requests with the old tokens are over.
    record.wait_for_all()
    for revocation in revocations.values():
        revocation.span.end = monotonic()


def endpoint_suspends(target: Target) -> None:
    """Scale to zero under load; the load wakes it."""
    how = target.dice.choice(["57P03", "refused", "wait"])
    with target.strike():
        target.setup.lake.suspend(target.outage, while_waking=how)


def postgres_is_killed(target: Target) -> None:
    """Postgres gets SIGKILL and starts again, with crash recovery."""
    with target.strike():
        target.setup.lake.restart_postgres(crash=True)


def postgres_restarts(target: Target) -> None:
    """Postgres shuts down and starts again, as for maintenance."""
    with target.strike():
        target.setup.lake.restart_postgres()


def backends_are_terminated(target: Target) -> None:
    """An administrator ends half of the connections with pg_terminate_backend."""
    setup = target.setup
    connection = setup.beside()
    if connection is None:
        connections_are_dropped(target)
        return
    with connection, target.strike():
        pids = [pid for (pid,) in connection.execute(
            "select pid from pg_stat_activity where usename = any(%s) order by pid", ([*setup.users, setup.app],)
        )]  # fmt: skip
        for pid in target.dice.sample(pids, (len(pids) + 1) // 2):
            connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))


def connections_are_dropped(target: Target) -> None:
    """The server ends all connections (57P01)."""
    with target.strike():
        target.setup.lake.drop_connections()


def connections_are_lost(target: Target) -> None:
    """All connections end without a word."""
    with target.strike():
        target.setup.lake.drop_connections(silently=True)


def network_stalls(target: Target) -> None:
    """No byte passes on present or new connections; then all go on."""
    with target.setup.lake.hang(), target.setup.lake.stall():
        target.last()


def server_is_full(target: Target) -> None:
    """Logins meet 53300, until some have."""
    with target.setup.lake.too_many_connections() as fault:
        fault.wait(3, timeout=target.record.patience)


def port_is_closed(target: Target) -> None:
    """The port refuses connections; open connections go on."""
    with target.setup.lake.refuse():
        target.last()


def server_starts_up(target: Target) -> None:
    """Logins meet 57P03, until some have; open connections go on."""
    with target.setup.lake.refuse("57P03") as fault:
        fault.wait(5, timeout=target.record.patience)


def workspace_fails(target: Target) -> None:
    """Credentials expire while the workspace API answers 503, a few times."""
    lake = target.setup.lake
    with lake.fail_workspace(503, path="/credentials", count=3, retry_after=1) as fault:
        _expire(target)
        fault.wait(1, timeout=target.record.patience)


def pooler_restarts(target: Target) -> None:
    """PgBouncer is killed and started again."""
    with target.strike():
        target.setup.lake.restart_pooler()


FAULTS: dict[str, Callable[[Target], None]] = {
    "tokens expire": tokens_expire,
    "tokens rotated": tokens_are_rotated,
    "users revoked": users_are_revoked,
    "endpoint suspends": endpoint_suspends,
    "backends terminated": backends_are_terminated,
    "connections dropped": connections_are_dropped,
    "connections lost": connections_are_lost,
    "network stalls": network_stalls,
    "pooler restarts": pooler_restarts,
    "postgres killed": postgres_is_killed,
    "postgres restarts": postgres_restarts,
    "port closed": port_is_closed,
    "server starts up": server_starts_up,
    "workspace fails": workspace_fails,
    "server full": server_is_full,
}
