"""What a request does before its answer goes out: make its work durable, and give back what is not needed later."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from .._adapters import Adapter, CallbackAdapter
from .._backends.fork import snapshot as members
from .._backends.offload import in_worker
from ..errors import RequestContextError
from .current import NOTHING_RESOLVED
from .ending import CollectedErrors, ended_error, raise_errors
from .held import HeldResources, Use

__all__ = [
    "RELEASES",
    "BeforeAnswer",
    "Release",
    "agive_back",
    "give_back",
    "has_to_prepare",
    "keep_until",
    "keeps_values",
    "may_release_early",
]

#: When a pooled value goes back: when the handler has returned, after the response, or at the end of the request.
Release: TypeAlias = Literal["handler", "response", "end"]
RELEASES: Final[tuple[Release, ...]] = ("handler", "response", "end")  # the earliest first

_RANKS: Final[dict[Release, int]] = {release: rank for rank, release in enumerate(RELEASES)}


class BeforeAnswer(HeldResources):
    """The part of a request that deals with its answer."""

    __slots__ = ("_releases",)  # when values may go back, by id, as far as that was noted

    _releases: dict[int, set[Release | None]]

    # --- checkpoint ----------------------------------------------------------------------------------------------

    @property
    def has_checkpoint(self) -> bool:
        """Whether a value that it holds has something to do at a checkpoint."""
        uses = (self._owner or self)._uses
        if uses:
            for adapter, pool, value in tuple(uses.values()):
                if adapter.find_checkpoint(pool, value) is not None:
                    return True
        return False

    def checkpoint(self) -> None:
        """
        Make durable what was done with the pooled values, before an answer tells of it.

        Runs the checkpoint hook of each value, the last taken first, and stops at the first that fails. The values stay
        with the request. The integrations of `pooling.web` call this before the first byte of an answer; call it
        yourself before you tell a client something in the middle of a stream.

        Raises:
            RequestContextError: The request has ended, or a hook must be awaited: use `acheckpoint`.
        """
        checkpoints = self._find_checkpoints()
        if any(adapter.is_async for adapter, _ in checkpoints):
            raise RequestContextError(
                f"{self} holds values of an asyncio pool, whose checkpoint must be awaited: `await ctx.acheckpoint()`"
            )
        for _, run in checkpoints:
            run()

    async def acheckpoint(self) -> None:
        """As `checkpoint`, awaiting what has to be awaited. What blocks runs on a worker thread."""
        for adapter, run in self._find_checkpoints():
            result = run() if adapter.is_async else in_worker(run)
            if inspect.isawaitable(result):
                await result

    def _find_checkpoints(self) -> list[tuple[Adapter, Callable[[], Any]]]:
        owner = self._owner or self
        if owner.is_closed:
            raise ended_error(self)
        uses = reversed(tuple(owner._uses.values()))
        found = [(adapter, adapter.find_checkpoint(pool, value)) for adapter, pool, value in uses]
        return [(adapter, run) for adapter, run in found if run is not None]

    # --- giving back early ---------------------------------------------------------------------------------------

    def _take_due(self, at: Release, default: Release, *, may_await: bool) -> list[Use]:
        """Remove what goes back at this point from what is held, the last taken first."""
        due = [
            (key, use)
            for key, use in reversed(tuple(self._uses.items()))
            if not isinstance(use[0], CallbackAdapter) and self._is_due(use[2], at, default)
        ]
        if not may_await and any(adapter.is_async for _, (adapter, _, _) in due):
            raise RequestContextError(
                f"{self} holds values of an asyncio pool, and its answer was given without `await`: use an async view"
            )
        taken = [use for key, use in due if self._uses.pop(key, None) is not None]
        for ctx in (self, *(() if self._sharers is None else members(self._sharers))):
            ctx._forget([value for _, _, value in taken])
        return taken

    def _is_due(self, value: Any, at: Release, default: Release) -> bool:
        noted = self._releases.get(id(value), (None,))
        return max(_RANKS[release or default] for release in noted) <= _RANKS[at]

    def _forget(self, values: list[Any]) -> None:
        """Have the providers of these values take others when they are asked again."""
        gone = {id(value) for value in values}
        for value in gone:
            self._releases.pop(value, None)
        if self.resolved is not NOTHING_RESOLVED:
            for provider, value in tuple(self.resolved.items()):
                if id(value) in gone:
                    self.resolved.pop(provider, None)


def has_to_prepare(ctx: BeforeAnswer, default: Release | None) -> bool:
    """
    Whether there is something to do before its answer.

    Args:
        ctx: The request.
        default: When pooled values go back for which nothing was noted; `None` if no value does now.
    """
    if ctx.is_closed:
        return False
    if default == "handler" or (default is not None and may_release_early(ctx)):
        return True
    return ctx.error is None and ctx.has_checkpoint


def keep_until(ctx: BeforeAnswer, value: Any, release: Release | None) -> None:
    """Note when a pooled value may go back; `None` is the default. The latest of all notes counts."""
    owner = ctx._owner or ctx
    owner._releases.setdefault(id(value), set()).add(release)


def give_back(ctx: BeforeAnswer, at: Release, default: Release) -> None:
    """
    Give back the pooled values that are not needed after this point. The request goes on, and may take others.

    Args:
        ctx: The request.
        at: The point that the request has reached.
        default: When values go back for which nothing was noted.
    """
    owner = ctx._owner or ctx
    errors = CollectedErrors()
    for adapter, pool, value in owner._take_due(at, default, may_await=False):
        with errors:
            adapter.give(pool, value, owner.error)
    if errors:
        raise_errors(errors, ctx, owner.error)


async def agive_back(ctx: BeforeAnswer, at: Release, default: Release) -> None:
    """As `give_back`, awaiting what has to be awaited. After a cancellation it still gives back the rest."""
    owner = ctx._owner or ctx
    errors = CollectedErrors()
    for adapter, pool, value in owner._take_due(at, default, may_await=True):
        with errors:
            ending = adapter.give_in_loop(pool, value, owner.error)
            if ending is not None:
                await ending
    if errors:
        raise_errors(errors, ctx, owner.error)


def keeps_values(ctx: BeforeAnswer) -> bool:
    """Whether a value that it holds was noted to stay until the end."""
    return any("end" in noted for noted in tuple(ctx._releases.values()))


def may_release_early(ctx: BeforeAnswer) -> bool:
    """Whether something other than the default was noted for a value that it holds."""
    return bool(ctx._releases) and any(noted != {None} for noted in tuple(ctx._releases.values()))
