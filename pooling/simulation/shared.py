"""What a limit is that several processes share, and what may go wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from ..options import is_seconds
from .workload import Duration, check_duration, check_whole

LARGEST_BLOCK = 16
BLOCKS = 16  # parts of the limit that are a block, as in a `SharedBudget`


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """
    How processes share a limit: the settings of a `SharedBudget`, and what its store is like.

    `files()`, `redis()` and `postgres()` have what is typical of these stores.

    Args:
        latency: Seconds from a claim to its answer. As for other durations a `Histogram` may stand here.
        away: When the store cannot be reached: pairs of the instant at which that begins, and for how many seconds.
        sees_death: Whether the store itself sees the end of a process.
        can_hear: Whether a process can be told that others need something.
        lease_ttl: Seconds without a word after which the places of a process are given to others.
        block: How many places to lease at a time; `None` is a sixteenth of the limit, at most 16.
        idle_after: Seconds without growth after which unused places are given back.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    latency: Duration = 0.002
    away: Sequence[tuple[float, float]] = ()
    sees_death: bool = False
    can_hear: bool = True
    lease_ttl: float = 30.0
    block: int | None = None
    idle_after: float = 5.0

    def __post_init__(self) -> None:
        check_duration("latency", self.latency)
        if not (is_seconds(self.lease_ttl) and 0 < self.lease_ttl < math.inf):
            raise ConfigurationError(f"lease_ttl={self.lease_ttl!r}: expected seconds, above 0", field="lease_ttl")
        if not (is_seconds(self.idle_after) and self.idle_after >= 0):
            raise ConfigurationError(f"idle_after={self.idle_after!r}: expected seconds, 0 or more", field="idle_after")
        if self.block is not None:
            check_whole("block", self.block, 1)
        for begins_at, seconds in self.away:
            _check_instant("away", begins_at)
            _check_instant("away", seconds)

    @classmethod
    def files(cls, **settings: Any) -> Sharing:
        """As with `FileLeases`: the kernel sees the end of a process, and a claim writes one small file."""
        return cls(**{"latency": 0.0005, "sees_death": True, **settings})

    @classmethod
    def redis(cls, **settings: Any) -> Sharing:
        """As with `RedisLeases`: a claim takes two round trips."""
        return cls(**settings)

    @classmethod
    def postgres(cls, **settings: Any) -> Sharing:
        """As with `PostgresLeases`: two statements, and nobody can be told anything."""
        return cls(**{"latency": 0.005, "can_hear": False, **settings})

    def block_of(self, limit: int) -> int:
        """How many places a process leases at a time."""
        return self.block or max(1, min(limit // BLOCKS, LARGEST_BLOCK))


@dataclass(frozen=True, slots=True)
class Kill:
    """
    The end of a process, without a farewell. Its requests fail, its connections close at once.

    Args:
        at: The instant, in seconds.
        process: Its number, from 0.
        restart_after: Seconds until another process takes its part. Until then its requests go to the others.

    Raises:
        ConfigurationError: A value that cannot work.
    """

    at: float
    process: int = 0
    restart_after: float = 1.0

    def __post_init__(self) -> None:
        check_whole("process", self.process, 0)
        _check_instant("at", self.at)
        _check_instant("restart_after", self.restart_after)


def _check_instant(name: str, value: float) -> None:
    if not (is_seconds(value) and 0 <= value < math.inf):
        raise ConfigurationError(f"{name}={value!r}: expected seconds, 0 or more", field=name)
