"""Which event loop an asyncio pool belongs to: the first that uses it, until that one is closed."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Any

from .._engine import messages
from ..errors import PoolingError

if TYPE_CHECKING:
    from .._engine.engine import Engine

log = logging.getLogger("pooling")


def bind(engine: Engine) -> None:
    """
    Bind the engine of an asyncio pool to the running loop. Forgets the resources of one that was closed.

    Raises:
        PoolingError: The pool has resources in another loop, which was not closed.
        RuntimeError: No loop is running here.
    """
    backend: Any = engine.backend
    loop, bound = asyncio.get_running_loop(), backend.loop
    if bound is loop:
        return
    if bound is not None and (engine.ledger.slots or engine.ledger.waiting):
        _leave(engine, bound)
    engine.armed_at = inf  # an alarm set in another loop, or without one, does not ring here
    backend.bind(loop)


def _leave(engine: Engine, bound: asyncio.AbstractEventLoop) -> None:
    """
    Forget the resources of a loop that was closed: nothing can be awaited there any more.

    Raises:
        PoolingError: The loop was not closed.
    """
    ledger = engine.ledger
    count = len(ledger.slots)
    holding = (
        f"{messages.title(engine.name, engine.key)} has {count} {ledger.noun}{'s' * (count != 1)} of the event loop it "
        "was first used in, and that loop "
    )
    advice = "Stop the pool before its loop ends (`async with pool:` does), or use one pool for each loop."
    if not bound.is_closed():
        raise PoolingError(
            f"{holding}is not the running one. {advice}", pool=engine.name, counts=messages.counts_of(ledger)
        )
    log.warning("%shas been closed: they are forgotten. %s", holding, advice)
    ledger.forget_all()
