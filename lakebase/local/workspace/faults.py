"""Faults of the workspace API."""

from __future__ import annotations

from types import MappingProxyType

from ..checks import check_seconds, check_whole
from ..faults import Fault, Faults

__all__ = ["WorkspaceFaults"]

_ERRORS = MappingProxyType(
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


class WorkspaceFaults(Faults):
    """The faults in force at the workspace API; see `LocalLakebase` for what each one does."""

    def fail(
        self, status: int, message: str | None, *, path: str | None, count: int | None, retry_after: float | None
    ) -> Fault:
        """Answer requests with an error."""
        check_whole("status", status, 400, 599)
        check_seconds("retry_after", retry_after, none="no such header")
        code, text = _ERRORS.get(status, ("ERROR", f"HTTP status {status}."))
        fault = Fault(
            self,
            "http",
            status=status,
            code=code,
            message=message or text,
            path=path,
            count=count,
            retry_after=retry_after,
        )
        return self.add(fault)

    def hold(self, *, path: str | None) -> Fault:
        """Keep requests waiting."""
        return self.add(Fault(self, "hang", path=path))

    def delay(self, seconds: float, *, path: str | None, count: int | None) -> Fault:
        """Answer requests later."""
        return self.add(Fault(self, "delay", seconds=seconds, path=path, count=count))
