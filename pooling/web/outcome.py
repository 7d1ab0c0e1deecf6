"""
How a request ended, if its framework turned an error into a response.

Release hooks have to know of an error that other code caught: a transaction must not be committed then, and a resource
in an unknown state must not go to the next borrower. Redirects raised as exceptions are not errors.
"""

from __future__ import annotations

from ..context import RequestContext

__all__ = ["ResponseError", "note_error", "note_status", "note_unfinished"]


class ResponseError(Exception):
    """The error of a request in which nothing was raised: a response of status 500 or more, or one cut short."""


def note_error(error: BaseException, ctx: RequestContext | None = None, *, status: int | None = None) -> None:
    """
    Set the error that a request ends with, for an exception that its framework turns into a response.

    Args:
        error: The exception.
        ctx: The request; the current one if `None`.
        status: The status of the response, if the exception has one; below 400, as for a redirect, it is no error.
    """
    ctx = ctx or RequestContext.current()
    if ctx is not None and (status is None or status >= 400):
        ctx.error = error


def note_status(ctx: RequestContext, status: int) -> None:
    """Set the error of a request that was answered with a server error."""
    if status >= 500 and ctx.error is None:
        ctx.error = ResponseError(f"{ctx} was answered with status {status}")


def note_unfinished(ctx: RequestContext) -> None:
    """Set the error of a request whose response was begun and not sent to its end."""
    if ctx.error is None:
        ctx.error = ResponseError(
            f"the response of {ctx} was not sent to its end: the client disconnected, or the body was given up"
        )
