"""Faults of the database, as the gateway brings them about."""

from __future__ import annotations

from types import MappingProxyType

from ..faults import Fault, Faults

__all__ = ["GatewayFaults"]

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


class GatewayFaults(Faults):
    """The faults in force at the gateway; see `LocalLakebase` for what each one does."""

    def refuse(self, reason: str, message: str | None, *, count: int | None, user: str | None) -> Fault:
        """Let no new connection succeed, for this reason."""
        if reason == "refused":
            if count is not None or user is not None:
                raise ValueError(
                    "refuse('refused') concerns the port, not single connections: use 'reset' with count or user"
                )
            return self.add(Fault(self, "refused"))
        if reason == "reset":
            return self.add(Fault(self, "reset", count=count, user=user))
        if len(reason) != 5 or reason != reason.upper() or not reason.isalnum():
            raise ValueError(f"reason={reason!r}: expected 'refused', 'reset' or a SQLSTATE of five characters")
        text = message or _MESSAGES.get(reason)
        if text is None:
            raise ValueError(f"reason={reason!r} needs a message")
        return self.add(Fault(self, "error", code=reason, message=text, count=count, user=user))

    def delay(self, seconds: float, *, count: int | None, user: str | None) -> Fault:
        """Answer new connections later."""
        return self.add(Fault(self, "delay", seconds=seconds, count=count, user=user))

    def hang(self, *, count: int | None, user: str | None) -> Fault:
        """Accept new connections and never answer them."""
        return self.add(Fault(self, "hang", count=count, user=user))

    def stall(self) -> Fault:
        """Let no byte through on open connections."""
        return self.add(Fault(self, "stall"))
