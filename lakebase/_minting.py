"""Minting a password before a connection is asked for, and trying again while that may succeed."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ._connecting import MINTING
from ._secrets import WithoutLocals
from .errors import CredentialError

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["minting"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two attempts that may succeed


def minting(connector: Any, deadline: float, *, is_async: bool) -> Steps[None]:
    """
    Have the credentials of a pool's connector mint a password.

    A failure that may pass is tried again until the deadline, as the engine does with a failed connect.

    Raises:
        CredentialError: It cannot be minted, or was not in time (`is_transient`).
    """
    pause = _FIRST_PAUSE
    mint, sleep = (_amint, asyncio.sleep) if is_async else (_mint, time.sleep)
    while True:
        try:
            with WithoutLocals():
                yield from connector.finding_host()
                connector.doing = MINTING
                yield partial(mint, connector.credentials, deadline - time.monotonic())
                return
        except CredentialError as error:
            yield from connector.noting(error)
            if not error.is_transient or time.monotonic() + pause >= deadline:
                raise
        yield partial(sleep, pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _mint(source: Any, seconds: float) -> None:
    source.password(max(seconds, 0.0))


async def _amint(source: Any, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await source.apassword()
    except TimeoutError:
        raise CredentialError(
            f"no credential within {seconds:.3g} s. It is still being waited for, and serves later connections",
            is_transient=True,
            step="creating",
        ) from None
