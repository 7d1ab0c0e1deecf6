"""
Loading at start-up, in the background, what the first user would otherwise wait for.

The app's own identity needs the Databricks SDK, whose import takes a second; a user's token needs the HTTP client and
the trusted certificates, a tenth of that. Nothing is connected, and nothing is asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING

from ._user_client import workspace_at
from ._workspace import load_sdk

if TYPE_CHECKING:
    from .config import LakebasePoolConfig

__all__ = ["warm_up"]

#: `0` in this environment variable switches it off, for all pools of the process.
SWITCH = "LAKEBASE_WARM_UP"
_OFF = frozenset({"0", "false", "no", "off"})

_begun: set[Hashable] = set()


def warm_up(config: LakebasePoolConfig, *, for_users: bool) -> None:
    """
    Load in the background what the first mint with this configuration needs. Returns at once.

    Has no effect if it has begun before in this process, where no token will be minted here, or where it is switched
    off. A failure is left to the first mint, which meets it again.

    Args:
        config: Of a pool, or the base of a manager.
        for_users: Whether the tokens to be minted are users', with their own tokens for the workspace.
    """
    if config.password is not None or config.workspace_client is not None or not config.warm_up:
        return
    workspace = workspace_at(config.workspace_url) if for_users else None
    if workspace is None:
        _begin("sdk", load_sdk)
    else:
        _begin(workspace.url, workspace.prepare)


def _begin(what: Hashable, load: Callable[[], object]) -> None:
    if what in _begun or os.environ.get(SWITCH, "").strip().lower() in _OFF:
        return
    _begun.add(what)

    def run() -> None:
        with suppress(Exception):
            load()

    with suppress(RuntimeError):  # no thread can be begun
        threading.Thread(target=run, name="lakebase-warm-up", daemon=True).start()
