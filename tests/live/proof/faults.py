"""What goes wrong, each in one function; it has begun and ended, or been got over by itself, when that returns."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from .load import Load
from .record import Record, Revocation, Span
from .stage import Stage

# Turns of the gateway's loop in which it has passed on to its clients what servers that are gone have left behind.
TURNS = 20


@dataclass
class Scene:
    """
    Where faults happen.

    Args:
        outage: Seconds that an outage lasts: the length is the fault's, nothing waits for it to be over.
    """

    stage: Stage
    record: Record
    loads: Sequence[Load]
    outage: float
    dice: random.Random = field(default_factory=random.Random)

    @contextmanager
    def strike(self) -> Iterator[None]:
        """
        Connections are killed in this block; at its end all clients have been told.

        The pooler takes logins while the server behind it is away, and lets their first statement fail. What it
        excuses ends when it serves again: a second after its last vain attempt.
        """
        with self.record.strike(self.stage.pooled):
            with self.record.strike():
                yield
                for _ in range(TURNS):
                    self.stage.lake.stats()
            self.stage.wait_for_pooler(self.record.patience)

    def last(self) -> None:
        """Let the outage last."""
        threading.Event().wait(self.outage)


def nothing(scene: Scene) -> None:
    """Nothing goes wrong."""


def _expire(scene: Scene) -> None:
    scene.stage.lake.expire_tokens()
    scene.record.expiries.append(monotonic())


def tokens_expire(scene: Scene) -> None:
    """All minted credentials expire; open connections stay, and the next login mints."""
    _expire(scene)


def tokens_are_rotated(scene: Scene) -> None:
    """Each user, one after the other, comes with another workspace token."""
    stage = scene.stage
    for user in stage.users:
        stage.tokens[user] = stage.lake.add_user(user)


def users_are_revoked(scene: Scene) -> None:
    """Some users lose everything they had; the app closes their pools; they get new tokens in the end."""
    stage, record = scene.stage, scene.record
    users = scene.dice.sample(stage.users, 2)
    revocations = {user: Revocation(Span(monotonic())) for user in users}
    for user, revocation in revocations.items():
        record.revocations.setdefault(user, []).append(revocation)
        stage.lake.revoke(user)
        for load in scene.loads:
            load.close_user(user)
        revocation.in_force = Span(monotonic())
    with record.changed:
        was_told = record.changed.wait_for(lambda: record.phase.turned_away >= 2, record.patience)
    if not was_told:
        record.violate("nobody was turned away")
    for user, revocation in revocations.items():
        revocation.in_force.end = monotonic()
        stage.tokens[user] = stage.lake.add_user(user)
    # Until requests with the old tokens are over.
    record.wait_for_all()
    for revocation in revocations.values():
        revocation.span.end = monotonic()


def endpoint_suspends(scene: Scene) -> None:
    """Scale to zero under load; the load wakes it."""
    how = scene.dice.choice(["57P03", "refused", "wait"])
    with scene.strike():
        scene.stage.lake.suspend(scene.outage, while_waking=how)


def postgres_is_killed(scene: Scene) -> None:
    """Postgres gets SIGKILL and starts again, with crash recovery."""
    with scene.strike():
        scene.stage.lake.restart_postgres(crash=True)


def postgres_restarts(scene: Scene) -> None:
    """Postgres shuts down and starts again, as for maintenance."""
    with scene.strike():
        scene.stage.lake.restart_postgres()


def backends_are_terminated(scene: Scene) -> None:
    """An administrator ends half of the connections with pg_terminate_backend."""
    stage = scene.stage
    connection = stage.beside()
    if connection is None:
        connections_are_dropped(scene)
        return
    with connection, scene.strike():
        pids = [pid for (pid,) in connection.execute(
            "select pid from pg_stat_activity where usename = any(%s) order by pid", ([*stage.users, stage.app],)
        )]  # fmt: skip
        for pid in scene.dice.sample(pids, (len(pids) + 1) // 2):
            connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))


def connections_are_dropped(scene: Scene) -> None:
    """The server ends all connections (57P01)."""
    with scene.strike():
        scene.stage.lake.drop_connections()


def connections_are_lost(scene: Scene) -> None:
    """All connections end without a word."""
    with scene.strike():
        scene.stage.lake.drop_connections(silently=True)


def network_stalls(scene: Scene) -> None:
    """No byte passes, on connections there are or on new ones; then all goes on."""
    with scene.stage.lake.hang(), scene.stage.lake.stall():
        scene.last()


def server_is_full(scene: Scene) -> None:
    """Logins meet 53300, until some have."""
    with scene.stage.lake.too_many_connections() as fault:
        fault.wait(3, timeout=scene.record.patience)


def port_is_closed(scene: Scene) -> None:
    """Nobody listens; open connections go on."""
    with scene.stage.lake.refuse():
        scene.last()


def server_starts_up(scene: Scene) -> None:
    """Logins meet 57P03, until some have; open connections go on."""
    with scene.stage.lake.refuse("57P03") as fault:
        fault.wait(5, timeout=scene.record.patience)


def workspace_fails(scene: Scene) -> None:
    """Credentials expire while the workspace API answers 503, a few times."""
    lake = scene.stage.lake
    with lake.fail_workspace(503, path="/credentials", count=3, retry_after=1) as fault:
        _expire(scene)
        fault.wait(1, timeout=scene.record.patience)


def pooler_restarts(scene: Scene) -> None:
    """PgBouncer is killed and started again."""
    with scene.strike():
        scene.stage.lake.restart_pooler()


FAULTS: dict[str, Callable[[Scene], None]] = {
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
