"""The arguments that every kind of dashboard has."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from ...errors import ConfigurationError

__all__ = ["Decision", "check_arguments", "plain_decisions"]

log: logging.Logger = logging.getLogger("pooling")


def check_arguments(authorize: object, allow_actions: object, show_keys: object, interval: object) -> None:
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
    if not isinstance(show_keys, bool):
        raise ConfigurationError(f"show_keys={show_keys!r}: expected True or False", field="show_keys")
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if not is_number or not 0.1 <= interval <= 60.0:  # type: ignore[operator]
        raise ConfigurationError(f"interval={interval!r}: expected seconds, 0.1 to 60", field="interval")


class Decision:
    """
    A switch, or a callable that decides for each request: only its `True` means yes.

    A text such as "no" is true in Python, and so is a user that is not signed in. The first answer that is neither
    `True` nor `False` is logged.

    Args:
        name: The argument's name.
        question: The switch or the callable.
    """

    def __init__(self, name: str, question: bool | Callable[[Any], Any]) -> None:
        self._name = name
        self._question = question
        self._is_logged = False

    def refuse_coroutine_function(self) -> None:
        """
        Check that the callable has not to be awaited.

        Raises:
            ConfigurationError: It has to be.
        """
        asked = self._question
        if inspect.iscoroutinefunction(asked) or inspect.iscoroutinefunction(vars(type(asked)).get("__call__")):
            raise ConfigurationError(f"{self._name}: a coroutine function cannot be awaited here", field=self._name)

    def answer(self, request: Any) -> bool:
        """
        The decision where nothing can be awaited.

        Raises:
            ConfigurationError: The callable returned an awaitable.
        """
        said = self._ask(request)
        if inspect.isawaitable(said):
            if inspect.iscoroutine(said):
                said.close()
            raise ConfigurationError(
                f"{self._name} returned an awaitable, which cannot be awaited here", field=self._name
            )
        return self._is_yes(said)

    async def awaited_answer(self, request: Any) -> bool:
        """The decision, where the callable may be a coroutine function."""
        said = self._ask(request)
        return self._is_yes(await said if inspect.isawaitable(said) else said)

    def _ask(self, request: Any) -> Any:
        return self._question if isinstance(self._question, bool) else self._question(request)

    def _is_yes(self, said: object) -> bool:
        if not isinstance(said, bool) and not self._is_logged:
            self._is_logged = True
            log.warning(  # its type alone: it may be a session
                "the live page's %s returned a %s, which means no: return True, or bool(…) of it",
                self._name, type(said).__name__,
            )  # fmt: skip
        return said is True


def plain_decisions(authorize: Callable[[Any], bool], allow_actions: Any) -> tuple[Decision, Decision]:
    """
    The two decisions of a dashboard that cannot await one.

    Raises:
        ConfigurationError: One is a coroutine function.
    """
    decisions = Decision("authorize", authorize), Decision("allow_actions", allow_actions)
    for decision in decisions:
        decision.refuse_coroutine_function()
    return decisions
