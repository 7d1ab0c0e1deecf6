"""
How a request ended, where its framework has made an answer of what went wrong.

The release side of a pool has to know of an error that other code caught: what a handler had begun must not be
committed, and a resource in the middle of something must not be the next borrower's. Redirects raised as exceptions
are no errors.
"""

from __future__ import annotations

from ..context import RequestContext

__all__ = ["ResponseError", "note_error", "note_status", "note_unfinished"]


class ResponseError(Exception):
    """What a request ended with, where nothing was raised: an answer of 500 or more, or one that was not sent whole."""


def note_error(error: BaseException, ctx: RequestContext | None = None, *, status: int | None = None) -> None:
    """
    Have a request end with an error that its framework answers.

    Args:
        error: What was raised.
        ctx: The request; the current one if `None`.
        status: Of the answer, if the error is one that says it; one of less than 400, as of a redirect, is no error.
    """
    ctx = ctx or RequestContext.current()
    if ctx is not None and (status is None or status >= 400):
        ctx.error = error


def note_status(ctx: RequestContext, status: int) -> None:
    """Have a request that was answered with a server's error end with one."""
    if status >= 500 and ctx.error is None:
        ctx.error = ResponseError(f"{ctx} was answered with status {status}")


def note_unfinished(ctx: RequestContext) -> None:
    """Have a request end with an error whose response was begun, and not sent to its end."""
    if ctx.error is None:
        ctx.error = ResponseError(
            f"the response of {ctx} was not sent to its end: its client has gone, or what makes its body gave up"
        )
