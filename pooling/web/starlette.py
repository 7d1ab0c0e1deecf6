"""Starlette, and what is built on it: a container that lives as long as the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from .asgi import RequestContextMiddleware, headers

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["RequestContextMiddleware", "headers", "lifespan"]


def lifespan(
    container: Any,
    inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    *,
    timeout: float | None = None,
) -> Callable[[Starlette], AbstractAsyncContextManager[Any]]:
    """
    A lifespan for the app: `Starlette(lifespan=lifespan(container))`.

    The container starts before the app serves and stops after its last request; it is `app.state.container` meanwhile.

    Args:
        container: What to start and stop.
        inner: The app's own lifespan, run while the container is running.
        timeout: As for `Container.stop`.
    """

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[Any]:
        async with container.running(timeout):
            app.state.container = container
            if inner is None:
                yield None
                return
            async with inner(app) as state:
                yield state

    return run
