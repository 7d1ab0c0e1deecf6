"""
One body for two front ends: steps that `run` calls and `arun` awaits.

A function that reads the same for threads and for asyncio is written once, as a generator. It yields each call that
blocks in one of them and is awaited in the other, and goes on with what the call returned or raised; psycopg is
built the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from inspect import isawaitable
from typing import Any, TypeVar

__pooling_internal__ = True

__all__ = ["Steps", "arun", "run"]

R = TypeVar("R")

#: A generator of calls without arguments, which returns an `R`.
Steps = Generator[Callable[[], Any], Any, R]


def run(steps: Steps[R]) -> R:
    """Make the calls one after the other; return what the generator returns."""
    call: Callable[[], Any] | None
    try:
        call = next(steps)
        while True:
            try:
                results = [call()]
            except BaseException as error:  # noqa: BLE001 - raised again unless the steps handle it
                call = None
                call = steps.throw(error)
            else:
                call = None
                call = steps.send(results.pop())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def arun(steps: Steps[R]) -> R:
    """As `run`, awaiting what a call returns if that can be awaited. A cancellation is raised inside the steps."""
    call: Callable[[], Any] | None
    try:
        call = next(steps)
        while True:
            try:
                results = [call()]
                if isawaitable(results[0]):
                    results = [await results[0]]
            except BaseException as error:  # noqa: BLE001 - raised again unless the steps handle it
                call = None
                call = steps.throw(error)
            else:
                call = None
                call = steps.send(results.pop())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
