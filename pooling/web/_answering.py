"""What the integrations for WSGI and Django share: a request that is open until its response is complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._request.current import Active
from ..context import RequestContext
from .outcome import note_unfinished

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Answering", "StreamedBody"]


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
