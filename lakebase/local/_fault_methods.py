"""What can be made to go wrong with a local Lakebase."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ._checks import check_seconds, check_while_waking, check_whole
from ._faults import Fault

if TYPE_CHECKING:
    from ._running import Running
    from ._scale import State, WhileWaking

__all__ = ["FaultMethods"]

# The server's own words, in English: https://github.com/postgres/postgres/tree/master/src/backend
_MESSAGES = MappingProxyType(
    {
        "28000": 'role "{user}" is not permitted to log in',
        "28P01": 'password authentication failed for user "{user}"',
        "3D000": 'database "databricks_postgres" does not exist',
        "53300": "sorry, too many clients already",
        "57P01": "terminating connection due to administrator command",
        "57P03": "the database system is starting up",
        "58000": "could not open file",
        "XX000": "internal error",
    }
)
_STATUS = MappingProxyType(
    {
        400: ("INVALID_PARAMETER_VALUE", "Invalid request."),
        401: ("UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API."),
        403: ("PERMISSION_DENIED", "User does not have permission."),
        404: ("RESOURCE_DOES_NOT_EXIST", "Resource does not exist."),
        429: ("REQUEST_LIMIT_EXCEEDED", "Current request limit exceeded, please retry after a pause."),
        500: ("INTERNAL_ERROR", "Internal error."),
        503: ("TEMPORARILY_UNAVAILABLE", "The service is temporarily unavailable."),
    }
)


class FaultMethods:
    """
    Faults of the database and of the workspace API.

    Each method returns a `Fault` that is already in force: use it in a `with`
    block, or call its `clear()`. Where two concern the same client, the younger wins.
    """

    if TYPE_CHECKING:

        @property
        def _parts(self) -> Running: ...

    # The database

    def refuse(
        self, reason: str = "refused", message: str | None = None, *, count: int | None = None, user: str | None = None
    ) -> Fault:
        """
        Let no new connection succeed.

        Args:
            reason: `refused`: nobody listens, `connect` gets ECONNREFUSED. `reset`: the connection is
                dropped without an answer. Anything else is the SQLSTATE of the error that the client gets.
            message: The error's text, in which `{user}` is the role; for well-known codes Postgres' own if `None`.
            count: So many connections, then no more; `None` until cleared. Not for `refused`, which nobody can count.
            user: Only this role's connections; `None` for everybody's. Not for `refused`.
        """
        faults = self._parts.gateway.faults
        if reason == "refused":
            if count is not None or user is not None:
                raise ValueError(
                    "refuse('refused') concerns the port, not single connections: use 'reset' with count or user"
                )
            return faults.add(Fault(faults, "refused"))
        if reason == "reset":
            return faults.add(Fault(faults, "reset", count=count, user=user))
        if len(reason) != 5 or reason != reason.upper() or not reason.isalnum():
            raise ValueError(f"reason={reason!r}: expected 'refused', 'reset' or a SQLSTATE of five characters")
        text = message or _MESSAGES.get(reason)
        if text is None:
            raise ValueError(f"reason={reason!r} needs a message")
        return faults.add(Fault(faults, "error", code=reason, message=text, count=count, user=user))

    def too_many_connections(self, *, count: int | None = None, user: str | None = None) -> Fault:
        """Answer new connections as if all slots were taken (53300)."""
        return self.refuse("53300", count=count, user=user)

    def delay(self, seconds: float, *, count: int | None = None, user: str | None = None) -> Fault:
        """Answer new connections later by so many seconds."""
        faults = self._parts.gateway.faults
        return faults.add(Fault(faults, "delay", seconds=seconds, count=count, user=user))

    def hang(self, *, count: int | None = None, user: str | None = None) -> Fault:
        """Accept new connections and never answer them; when it is cleared, those still there go on."""
        faults = self._parts.gateway.faults
        return faults.add(Fault(faults, "hang", count=count, user=user))

    def stall(self) -> Fault:
        """Let no byte through on open connections, in either direction; when it is cleared, they go on."""
        faults = self._parts.gateway.faults
        return faults.add(Fault(faults, "stall"))

    def drop_connections(self, user: str | None = None, *, silently: bool = False) -> int:
        """
        End open connections, a role's or all, and return how many. Blocks until they are gone.

        Postgres ends them with its own words (57P01); `silently`, the network does.
        """
        parts = self._parts
        return parts.loop.run(parts.gateway.drop(user, politely=not silently))

    def restart_pooler(self) -> None:
        """Kill the pooler and start it again: its clients lose their connections. Blocks until it listens."""
        self._parts.restart_pooler()

    def restart_postgres(self, *, crash: bool = False) -> None:
        """Shut Postgres down and start it again, or with `crash` kill it. Blocks until it accepts connections."""
        self._parts.restart_postgres(crash=crash)

    # Scale to zero

    @property
    def state(self) -> State:
        """Of the compute: `ACTIVE`, `IDLE` (suspended), or `INIT` while it wakes."""
        parts = self._parts
        return parts.loop.call(lambda: parts.gateway.compute.state)

    def suspend(self, wake_after: float | None = 0.3, *, while_waking: WhileWaking = "57P03") -> None:
        """
        Scale to zero: every connection is dropped, and the next attempt to connect wakes the compute.

        Blocks until the connections are gone.

        Args:
            wake_after: Seconds from that attempt until it is awake; `None` leaves it to `resume`.
            while_waking: What clients meet till then, the first one included: the server's error `57P03`; `refused`
                (the first is dropped without an answer, since somebody has to notice it); or `wait`, until it is awake.
        """
        check_while_waking(while_waking)
        check_seconds("wake_after", wake_after, none="never")
        parts = self._parts
        parts.loop.run(parts.gateway.suspend(wake_after, while_waking))

    def resume(self) -> None:
        """Have the compute awake, and listening, when this returns."""
        parts = self._parts
        parts.loop.run(parts.gateway.resume())

    # The workspace API

    def fail_workspace(
        self,
        status: int,
        message: str | None = None,
        *,
        path: str | None = None,
        count: int | None = None,
        retry_after: float | None = None,
    ) -> Fault:
        """
        Let the workspace API answer with an error.

        Args:
            status: Of HTTP: 400, 401, 403, 404, 429, 500, 503, ….
            message: For the error's body.
            path: Only requests whose path has this in it, as `/credentials`; `None` for all.
            count: So many requests, then no more; `None` until cleared.
            retry_after: Seconds in a `Retry-After` header; the SDK obeys it.
        """
        check_whole("status", status, 400, 599)
        check_seconds("retry_after", retry_after, none="no such header")
        code, text = _STATUS.get(status, ("ERROR", f"HTTP status {status}."))
        faults = self._parts.workspace.faults
        fault = Fault(
            faults,
            "http",
            status=status,
            code=code,
            message=message or text,
            path=path,
            count=count,
            retry_after=retry_after,
        )
        return faults.add(fault)

    def hold_workspace(self, *, path: str | None = None) -> Fault:
        """Keep requests to the workspace API waiting; when it is cleared, they are answered."""
        faults = self._parts.workspace.faults
        return faults.add(Fault(faults, "hang", path=path))

    def delay_workspace(self, seconds: float, *, path: str | None = None, count: int | None = None) -> Fault:
        """Let the workspace API answer later by so many seconds."""
        faults = self._parts.workspace.faults
        return faults.add(Fault(faults, "delay", seconds=seconds, path=path, count=count))

    def clear_faults(self) -> None:
        """End all faults, and have the compute awake."""
        parts = self._parts
        parts.workspace.faults.clear()
        parts.gateway.faults.clear()
        self.resume()
