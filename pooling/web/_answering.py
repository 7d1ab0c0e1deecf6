"""What the integrations share: what happens before an answer, and a request that is open until its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._request.answer import RELEASES, Release, agive_back, give_back, has_to_prepare
from .._request.current import Active
from ..context import RequestContext
from ..errors import ConfigurationError
from ._timing import timed_checkpoint
from .outcome import note_error, note_unfinished

if TYPE_CHECKING:
    from types import TracebackType

    from .errors import AnswerError, ErrorAnswer

__all__ = [
    "Answering",
    "ClosedOnError",
    "Release",
    "StreamedBody",
    "aprepare_answer",
    "check_container",
    "checked_errors",
    "checked_release",
    "find_answer",
    "prepare_answer",
]

logger = logging.getLogger("pooling")

# --- before the answer -----------------------------------------------------------------------------------------------


def checked_release(release: Any) -> Release:
    """
    Check a `release` argument.

    Raises:
        ConfigurationError: It is none of the known points.
    """
    if release not in RELEASES:
        raise ConfigurationError(
            f"release={release!r}: expected {', '.join(map(repr, RELEASES[:-1]))} or {RELEASES[-1]!r}", field="release"
        )
    return release  # type: ignore[no-any-return]


def check_container(container: Any, name: str = "container") -> None:
    """
    Check a `container` argument.

    Raises:
        ConfigurationError: It is a class, or nothing that can serve requests.
    """
    if isinstance(container, type):
        raise ConfigurationError(
            f"{name}={container.__name__}: expected a container, got its class; write {container.__name__}()",
            field=name,
        )
    if not all(hasattr(container, needed) for needed in ("request", "running", "injection_plans")):
        kind = getattr(container, "declarative_parent", None) or type(container)
        raise ConfigurationError(
            f"{name}: a {kind.__name__} cannot be started and stopped with an app; derive its class from "
            "pooling.di.Container, which is a DeclarativeContainer that can",
            field=name,
        )


def prepare_answer(ctx: RequestContext, status: int, release: Release) -> None:
    """
    Make durable what the handler did, and give back what only the handler needed, before the answer goes out.

    After an error nothing is made durable: the values are reset when they go back.

    Raises:
        Exception: That failed, so the answer must not go out. An answer of status 400 or more promises nothing; the
            failure is then only logged, and the request ends with it.
    """
    if not has_to_prepare(ctx, release):
        return
    with _failures_noted(ctx, status):
        if ctx.error is None:
            with timed_checkpoint():
                ctx.checkpoint()
    with _failures_noted(ctx, status):
        give_back(ctx, "handler", release)


async def aprepare_answer(ctx: RequestContext, status: int, release: Release | None) -> None:
    """As `prepare_answer`; a `release` of `None` gives nothing back."""
    if not has_to_prepare(ctx, release):
        return
    with _failures_noted(ctx, status):
        if ctx.error is None:
            with timed_checkpoint():
                await ctx.acheckpoint()
    if release is None:
        return
    with _failures_noted(ctx, status):
        await agive_back(ctx, "handler", release)


@contextmanager
def _failures_noted(ctx: RequestContext, status: int) -> Iterator[None]:
    """Have the request end with an error of the block. If the answer is an error already, it is only logged."""
    try:
        yield
    except Exception as error:
        note_error(error, ctx)
        if status < 400:
            raise
        logger.warning("%s was answered with status %s; what it did is not kept: %s", ctx, status, error)


def checked_errors(errors: Any) -> AnswerError | None:
    """
    Check an `errors` argument.

    Raises:
        ConfigurationError: It can answer nothing.
    """
    if errors is not None and not callable(errors):
        raise ConfigurationError(
            f"errors={errors!r}: expected a function such as pooling.web.errors.answer_error, or None", field="errors"
        )
    return errors  # type: ignore[no-any-return]


def find_answer(errors: AnswerError | None, error: Exception, ctx: RequestContext | None = None) -> ErrorAnswer | None:
    """
    The answer to an error that no handler of the app has answered. If there is one, the request ends with the error.

    Args:
        errors: Says how errors are answered; `None` answers none.
        error: The error.
        ctx: The request; the current one if `None`.
    """
    answer = None if errors is None else errors(error)
    if answer is not None:
        ctx = ctx or RequestContext.current()
        note_error(error, ctx)
        # What the server lacks is for its operator to see; that a client lacks a right is no news.
        level = logging.WARNING if answer.status >= 500 else logging.INFO
        logger.log(level, "%s is answered with status %s: %s", ctx or "a request", answer.status, error)
    return answer


class ClosedOnError:
    """Closes a response, or the body of one, if the block raises: the framework or server will not see it."""

    __slots__ = ("_response",)

    def __init__(self, response: Any) -> None:
        self._response = response

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        close = getattr(self._response, "close", None)
        if exc is not None and close is not None:
            close()


# --- a request in several steps --------------------------------------------------------------------------------------


class Answering(Active[RequestContext]):
    """Makes a request current while the app answers it, and ends it if the app raises. For `with` and `async with`."""

    __slots__ = ()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, exc, at)
        if exc is not None:
            self._ctx.close(exc)

    async def __aenter__(self) -> RequestContext:
        return super().__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        super().__exit__(kind, exc, at)
        if exc is not None:
            await self._ctx.aclose(exc)


class StreamedBody:
    """
    A response's body. Its request stays open until the body is complete or given up, and is current during each part.

    Args:
        content: The body that the app returned.
        ctx: The request.
        may_be_cut: Whether the body may be closed between its first part and its end without an error.
    """

    __slots__ = ("_content", "_ctx", "_may_be_cut", "_parts")

    def __init__(self, content: Any, ctx: RequestContext, *, may_be_cut: bool) -> None:
        self._content = content
        self._ctx = ctx
        self._may_be_cut = may_be_cut
        self._parts: Any = None  # the iterator, made for the first part

    def _next_part(self) -> Any:
        with self._ctx.active():
            if self._parts is None:
                parts: Iterator[Any] = iter(self._content)
                self._parts = parts
            return next(self._parts)

    def _note_given_up(self) -> None:
        """Note that no more parts will be requested."""
        if self._parts is not None and not self._may_be_cut and not self._ctx.is_closed:
            note_unfinished(self._ctx)
