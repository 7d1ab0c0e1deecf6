"""What the checks share: the question that was asked, and what has been found so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .._role_sql import PRIVILEGES as BY_LEVEL
from .finding import Finding, Verdict

if TYPE_CHECKING:
    from .._role_sql import Privilege
    from ..config import LakebasePoolConfig
    from ..errors import ConnectFailure
    from ..hosts import EndpointHosts

__all__ = ["PRIVILEGES", "Asked", "EndpointFacts", "Facts", "RoleFacts", "as_privileges", "first_line", "skipped"]

#: What an app does with its tables, unless it says otherwise.
PRIVILEGES = BY_LEVEL["TABLE"]["write"]


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What is to be looked at besides the connection.

    Args:
        budget: Most connections of one process; `None` is the configuration's `max_size`.
        workers: Processes of each replica.
        schemas: Whose tables the app uses, as names in SQL.
        tables: That the app uses, perhaps with their schema, as names in SQL.
        needs: The privileges that it needs on them; `None` if it did not say: then all, unless it is read-only.
        store: Where a `SharedBudget` keeps its leases; `None` if there is none.
    """

    budget: int | None = None
    workers: int = 1
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    needs: tuple[Privilege, ...] | None = None
    store: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """
    What the workspace says of an endpoint.

    Attributes:
        state: `ACTIVE`, `IDLE`, `INIT` or `DEGRADED`, before anything connected; empty if it did not say.
        suspend_after: Seconds without use until it is suspended; `None` if it is not, or if the workspace did not say.
    """

    state: str = ""
    suspend_after: float | None = None


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """The role that is logged in."""

    name: str
    bypasses_row_security: bool
    connection_limit: int | None


@dataclass
class Facts:
    """
    What the checks so far have found. Each check sets what it found, for those that come after it.

    Attributes:
        scopes: Of the token; `None` if they cannot be seen.
        lacks_scope: Whether they are seen to lack the one that minting needs.
        failure: Why the login failed.
    """

    config: LakebasePoolConfig
    environ: Mapping[str, str]
    asked: Asked = Asked()
    resolved: LakebasePoolConfig | None = None
    client: Any = None
    scopes: tuple[str, ...] | None = None
    lacks_scope: bool = False
    hosts: EndpointHosts | None = None
    endpoint: EndpointFacts | None = None
    password: str | None = None
    failure: ConnectFailure | None = None
    connection: Any = None
    role: RoleFacts | None = None

    @property
    def processes(self) -> int:
        """Those that open connections: the workers of all replicas."""
        return self.config.replicas * self.asked.workers


def as_privileges(words: Iterable[str] | None) -> tuple[Privilege, ...] | None:
    """Privileges as SQL spells them; whether they are any is checked with all that is asked."""
    return None if words is None else tuple(cast("Privilege", word.strip().upper()) for word in words)


def skipped(check: str, ground: str) -> Finding:
    """The finding of a check that depends on one that failed."""
    return Finding(check, Verdict.SKIPPED, f"only to be seen once the check of {ground} succeeds")


def first_line(error: BaseException) -> str:
    """An error's first words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
