"""
Clients of the workspace: making one, telling its errors apart, and keeping tokens out of its log.

The app's own client is the Databricks SDK's, a user's is a `UserClient`. The SDK is imported on first use, since that
takes most of a second. Every call of a client blocks.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ._http import HTTP_TIMEOUT
from ._secrets import HiddenText, WithoutLocals
from ._slow_imports import slow_import
from ._user_client import UserClient, library_version, workspace_at
from ._workspace_errors import WorkspaceError
from .errors import CredentialError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

#: How the SDK refuses an environment with more than one login; the ways are names of its own, such as `oauth and pat`.
_SEVERAL_LOGINS = re.compile(r"more than one authorization method configured: ([a-z-]+(?: and [a-z-]+)+)")

#: Seconds for a request with the SDK's own retries. Its default is 300, and 60 for one request.
RETRY_TIMEOUT = 10


def new_client(*, host: str | None = None, token: str | None = None) -> WorkspaceClient:
    """
    A client with short time limits: the app's own by the SDK's authentication, or of the user whose token is given.

    The app's blocks for one request, the SDK's discovery of the workspace. So does a user's where only a profile of
    the SDK names the workspace.
    """
    token = None if token is None else HiddenText(token)
    if token is not None and (workspace := workspace_at(host)) is not None:
        return cast("WorkspaceClient", UserClient(workspace, token))
    load_sdk()
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

    settings: dict[str, Any] = {
        "http_timeout_seconds": HTTP_TIMEOUT,
        "retry_timeout_seconds": RETRY_TIMEOUT,
        # Else `DATABRICKS_DEBUG_HEADERS` would write the token to the log.
        "debug_headers": False,
        "product": "lakebase-pooling",
        "product_version": library_version(),
    }
    if host is not None:
        settings["host"] = host
    if token is not None:
        # An app's environment has its own client id and secret: without `auth_type` the SDK refuses two identities.
        settings |= {"token": token, "auth_type": "pat"}
    with quiet():
        return WorkspaceClient(config=Config(**settings))


def why_no_client(error: BaseException) -> str:
    """
    Why the SDK made no client, and what to set. Has names of variables, and none of the SDK's words: these may quote
    values.
    """
    found = _SEVERAL_LOGINS.search(str(error))
    if found is None:
        return (
            "no client for the workspace could be made: the SDK found no host, or no way to authenticate there. "
            "Set DATABRICKS_HOST and the app's credentials, or give workspace_client="
        )
    from databricks.sdk.config import Config

    ways = set(found[1].split(" and "))
    of_ways = [one for one in Config.attributes() if one.auth in ways]
    names = {name for one in of_ways for name in (one.env, *getattr(one, "env_aliases", ())) if name}
    seen = sorted(name for name in names if os.environ.get(name))
    return (
        f"no client for the workspace could be made: several ways to authenticate are set ({found[1]}), and the SDK "
        f"takes one. Of the environment: {', '.join(seen) or 'none, so a profile sets them'}. Unset what belongs to "
        "the other ways, or set DATABRICKS_AUTH_TYPE to the one that you want"
    )


def load_sdk() -> None:
    """Import the SDK. Blocks for a second, once in a process."""
    with slow_import():
        import databricks.sdk  # noqa: F401


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, throttled, or a failure inside the workspace."""
    if isinstance(error, (CredentialError, WorkspaceError)):
        return error.is_transient
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    # `requests` errors are `OSError`; the SDK has them retried and then lets the last one through.
    if type(error).__module__.partition(".")[0] in ("requests", "urllib3"):
        return True
    if isinstance(error, ValueError) and _is_of_token_endpoint(error):
        return not str(error).startswith(_OAUTH_REFUSALS)
    from databricks.sdk import errors

    return isinstance(
        error,
        (errors.TooManyRequests, errors.TemporarilyUnavailable, errors.InternalError, errors.DeadlineExceeded),
    )


# https://www.rfc-editor.org/rfc/rfc6749#section-5.2
_OAUTH_REFUSALS = (
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
)


def _is_of_token_endpoint(error: ValueError) -> bool:
    # The SDK makes any failure of the OAuth token endpoint a `ValueError` without the status, and tries only once.
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "databricks.sdk.oauth":
            return True
        trace = trace.tb_next
    return (
        error.__cause__ is not None
        and isinstance(error.__cause__, ValueError)
        and _is_of_token_endpoint(error.__cause__)
    )


def without_secrets(client: WorkspaceClient, text: str) -> str:
    """The text without anything that the client authenticates with."""
    config = getattr(client, "config", None)
    for name in ("token", "client_secret", "password"):
        secret = getattr(config, name, None)
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text


# The SDK logs answers at debug level and masks some fields; a database token is in one that it does not mask.
_SECRET = re.compile(r'("(?:access_|refresh_|id_)?token"\s*:\s*)"[^"]*"|(\bAuthorization:\s*)\S[^\n]*', re.IGNORECASE)
_scope = threading.local()


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(_scope, "depth", 0):
            text = record.getMessage()
            cleaned = _SECRET.sub(lambda match: f'{match[1] or match[2]}"**REDACTED**"', text)
            if cleaned is not text:
                record.msg, record.args = cleaned, ()
        return True


_REDACTING = _Redacting()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep tokens out of what the SDK logs on this thread meanwhile, and out of the frames of what it raises."""
    logging.getLogger("databricks.sdk").addFilter(_REDACTING)  # has no effect a second time
    _scope.depth = getattr(_scope, "depth", 0) + 1
    try:
        with WithoutLocals():
            yield
    finally:
        _scope.depth -= 1
