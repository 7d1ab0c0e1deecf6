"""The arguments that every kind of dashboard has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ...errors import ConfigurationError

__all__ = ["answered", "check_arguments", "refuse_coroutine_functions"]


def check_arguments(authorize: object, allow_actions: object, interval: object) -> None:
    """
    Check a dashboard's arguments.

    Raises:
        ConfigurationError: One cannot work.
    """
    if not callable(authorize):
        raise ConfigurationError(
            f"authorize={authorize!r}: expected a callable that says, given a request, whether it may see the page",
            field="authorize",
        )
    if not isinstance(allow_actions, bool) and not callable(allow_actions):
        raise ConfigurationError(
            f"allow_actions={allow_actions!r}: expected True, False, or a callable like authorize",
            field="allow_actions",
        )
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if not is_number or not 0.1 <= interval <= 60.0:  # type: ignore[operator]
        raise ConfigurationError(f"interval={interval!r}: expected seconds, 0.1 to 60", field="interval")


def refuse_coroutine_functions(**given: object) -> None:
    """
    Check that none of these has to be awaited.

    Raises:
        ConfigurationError: One has to be; taken as it is, its result would mean yes.
    """
    for name, each in given.items():
        if inspect.iscoroutinefunction(each) or inspect.iscoroutinefunction(vars(type(each)).get("__call__")):
            raise ConfigurationError(f"{name}: a coroutine function cannot be awaited here", field=name)


def answered(question: bool | Callable[[Any], Any], request: Any) -> bool:
    """
    What a switch or a callable says to a request.

    Raises:
        ConfigurationError: The callable returned an awaitable.
    """
    answer = question if isinstance(question, bool) else question(request)
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise ConfigurationError("authorize returned an awaitable, which cannot be awaited here", field="authorize")
    return bool(answer)
