"""Make durable what was done with a borrowed resource; it stays borrowed."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from .base import Operation

if TYPE_CHECKING:
    from ..pool import Pool


class Checkpoint(Operation[bool]):
    """
    Run the factory's checkpoint hook. The result is `False` if the resource is not out.

    The hook has no time limit of the pool's, and its error is raised as it is.
    """

    __slots__ = ("value",)

    def __init__(self, pool: Pool, value: Any) -> None:
        super().__init__(pool)
        self.value = value

    async def run(self) -> bool:
        pool = self.pool
        if id(self.value) not in pool.ledger.out:
            return False
        if pool.hooks.checkpoint is not None:
            await pool.backend.call(pool.hooks.checkpoint, (self.value,), inf)
        return True
