"""
Loading at start-up, in the background, what the first user would otherwise wait for.

The app's own identity needs the Databricks SDK, whose import takes a second; users' tokens need the HTTP client and the
trusted certificates, a tenth of that. Nothing is connected, and nothing is asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING

from ._environment import has_endpoint
from ._user_client import workspace_at
from ._workspace import load_sdk

if TYPE_CHECKING:
    from .config import LakebasePoolConfig

__all__ = ["warm_up_for_pool", "warm_up_for_users"]

#: `0` in this environment variable switches it off, for all pools of the process.
SWITCH = "LAKEBASE_WARM_UP"
_OFF = frozenset({"0", "false", "no", "off"})

_begun: set[Hashable] = set()


def warm_up_for_pool(config: LakebasePoolConfig) -> None:
    """
    Load in the background what a pool needs for its first mint. Returns at once.

    Has no effect if it has begun before in this process, where no token will be minted here, or where it is switched
    off. A failure is left to the first mint, which meets it again.
    """
    if config.token is not None:
        warm_up_for_users(config)
    elif _is_wanted(config):
        _begin("sdk", load_sdk)


def warm_up_for_users(config: LakebasePoolConfig) -> None:
    """The same for the pools of many users, of which this is the base configuration."""
    # Without an endpoint the users have passwords; without the workspace's address only a mint finds out what it needs.
    is_minting = config.endpoint or config.instance_name or has_endpoint(os.environ)
    if is_minting and _is_wanted(config) and (workspace := workspace_at(config.workspace_url)) is not None:
        _begin(workspace.url, workspace.prepare)


def _is_wanted(config: LakebasePoolConfig) -> bool:
    is_minted_here = config.password is None and config.workspace_client is None
    return is_minted_here and config.warm_up and os.environ.get(SWITCH, "").strip().lower() not in _OFF


def _begin(what: Hashable, load: Callable[[], object]) -> None:
    if what in _begun:
        return
    _begun.add(what)

    def run() -> None:
        with suppress(Exception):
            load()

    with suppress(RuntimeError):  # no thread can be begun
        threading.Thread(target=run, name="lakebase-warm-up", daemon=True).start()
