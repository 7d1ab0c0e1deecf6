"""Requests for code that no web framework calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from ..errors import ConfigurationError
from ._active import the_running

__all__ = ["task"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def task(function: F, /) -> F: ...
@overload
def task(container: Any = None, /, *, name: str | None = None, **values: Any) -> Callable[[F], F]: ...
def task(given: Any = None, /, *, name: str | None = None, **values: Any) -> Any:
    """
    Run each call of a function as a request of its own: a worker's task, a scheduled job, a command.

    What the call takes from pools goes back when it ends; an error is handed to the release hooks. For functions
    and coroutine functions, also of a class; combine with `inject` below it.

    Args:
        given: The container or the container's class. Left out, the one that runs at the time of the call.
        name: The request's name; by default that of the function.
        values: The request's values.

    Raises:
        ConfigurationError: It is a generator function, whose body runs after the call has ended.
    """
    if inspect.isroutine(given) or isinstance(given, staticmethod | classmethod):
        return _wrap(given, None, None, {})
    return lambda function: _wrap(function, given, name, values)


def _wrap(function: Any, container: Any, name: str | None, values: dict[str, Any]) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_wrap(function.__func__, container, name, values))
    title = name or function.__qualname__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"task: {title} is a generator function, whose body runs after the call has ended, and so outside of its "
            "request. Open the request where it is iterated over: with app.request(): ...",
            field="task",
        )

    def request() -> Any:
        chosen = container if container is not None and not isinstance(container, type) else the_running(container)
        return chosen.request(title, **values)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            async with request():
                return await function(*args, **kwargs)

        return arun

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with request():
            return function(*args, **kwargs)

    return run
