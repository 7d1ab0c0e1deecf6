"""The Postgres role that an app logs in as."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._environment import ENVIRONMENT
from ._workspace import new_client, quiet
from .config import LakebasePoolConfig
from .errors import ConfigurationError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

__all__ = ["aresolve_username", "resolve_username", "user_name"]


def resolve_username(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None
) -> str:
    """
    The role for this configuration.

    Its `user`, then `PGUSER`, `DATABRICKS_CLIENT_ID`, then the workspace's
    name for this identity. That is the order of AppKit, Databricks' TypeScript library. A configuration
    with a user's `token` is that user's: the environment, which names the app,
    is not asked. Only the last step blocks, for a request to the workspace. No
    other answer stands in for a missing one.

    Raises:
        ConfigurationError: None of them has an answer; `__cause__` is the SDK's error, if there was one.
    """
    config = LakebasePoolConfig.of(config)
    if config.user is not None:
        return config.user
    if config.token is None:
        for variable in ENVIRONMENT["user"]:
            if name := (os.environ if environ is None else environ).get(variable):
                return name
    try:
        client = config.workspace_client or new_client(host=config.workspace_url, token=config.token)
        name = user_name(client)
    except Exception as error:
        raise _unknown(f"the workspace could not be asked ({type(error).__name__})") from error
    if not name:
        raise _unknown("the workspace did not name one")
    return name


async def aresolve_username(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None
) -> str:
    """Like `resolve_username()`, suspending: the workspace is asked on a thread."""
    return await asyncio.to_thread(resolve_username, config, environ=environ)


def user_name(client: WorkspaceClient) -> str | None:
    """The user name of the client's owner. Blocks for one request."""
    with quiet():
        return client.current_user.me().user_name


def _unknown(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"user is missing: neither user= nor {' nor '.join(ENVIRONMENT['user'])} is set, and {why}. Set one of them to "
        "the Postgres role to log in as.",
        field="user",
    )
