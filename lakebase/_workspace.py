"""
All that touches the Databricks SDK.

The SDK is imported on first use, since that takes most of a second; it is
synchronous, and every function here that calls it blocks.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .errors import CredentialError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

#: Seconds for one request, and for a request with the SDK's own retries. Its defaults are 60 and 300.
HTTP_TIMEOUT = 10.0
RETRY_TIMEOUT = 10


def new_client(*, host: str | None = None, token: str | None = None) -> WorkspaceClient:
    """
    A client with short time limits: the app's own by the SDK's authentication, or of the user whose token is given.

    Blocks for one request, the SDK's discovery of the workspace.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

    settings: dict[str, Any] = {
        "http_timeout_seconds": HTTP_TIMEOUT,
        "retry_timeout_seconds": RETRY_TIMEOUT,
        # Else `DATABRICKS_DEBUG_HEADERS` would write the token to the log.
        "debug_headers": False,
        "product": "lakebase-pooling",
        "product_version": _version(),
    }
    if host is not None:
        settings["host"] = host
    if token is not None:
        # An app's environment has client id and secret of its own: without `auth_type` the SDK refuses two identities.
        settings |= {"token": token, "auth_type": "pat"}
    with quiet():
        return WorkspaceClient(config=Config(**settings))


def _version() -> str:
    try:
        return version("lakebase-pooling")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"


def mint(
    client: WorkspaceClient,
    *,
    endpoint: str | None = None,
    instance_name: str | None = None,
    claims: Sequence[Any] | None = None,
    ttl: float | None = None,
) -> tuple[str, datetime]:
    """A database token and when it expires (aware, UTC). Blocks for one request and the SDK's retries."""
    with quiet():
        if instance_name is not None:
            return _mint_for_instance(client, instance_name, claims)
        assert endpoint is not None
        return _mint_for_endpoint(client, endpoint, claims, ttl)


def _mint_for_endpoint(
    client: WorkspaceClient, endpoint: str, claims: Sequence[Any] | None, ttl: float | None
) -> tuple[str, datetime]:
    if "/endpoints/" not in endpoint:
        endpoint = read_write_endpoint(client, endpoint)
    arguments: dict[str, Any] = {}
    if claims is not None:
        from databricks.sdk.service.postgres import RequestedClaims

        arguments["claims"] = [_claim(RequestedClaims, claim) for claim in claims]
    if ttl is not None:
        from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]

        arguments["ttl"] = Duration(seconds=int(ttl))
    answer = client.postgres.generate_database_credential(endpoint=endpoint, **arguments)
    return _complete(answer.token, answer.expire_time)


def _mint_for_instance(
    client: WorkspaceClient, instance_name: str, claims: Sequence[Any] | None
) -> tuple[str, datetime]:
    arguments: dict[str, Any] = {}
    if claims is not None:
        from databricks.sdk.service.database import RequestedClaims

        arguments["claims"] = [_claim(RequestedClaims, claim) for claim in claims]
    answer = client.database.generate_database_credential(instance_names=[instance_name], **arguments)
    return _complete(answer.token, answer.expiration_time)


def _claim(kind: Any, claim: Any) -> Any:
    return kind.from_dict(dict(claim)) if isinstance(claim, Mapping) else claim


def _complete(token: str | None, expires_at: Any) -> tuple[str, datetime]:
    if not token:
        raise CredentialError("the workspace answered without a token", is_transient=True)
    return token, aware(expires_at)


def aware(instant: Any) -> datetime:
    """An instant as the SDK's releases give it (protobuf, text, datetime) as an aware datetime in UTC."""
    if hasattr(instant, "ToDatetime"):
        instant = instant.ToDatetime()
    elif isinstance(instant, str):
        # Protobuf's JSON has up to nine digits of a second; `datetime` reads six.
        instant = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", instant))
    if not isinstance(instant, datetime):
        raise CredentialError("the workspace answered without the instant at which its token expires")
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def read_write_endpoint(client: WorkspaceClient, branch: str) -> str:
    """The resource name of a branch's read-write endpoint. Blocks for one request or more."""
    for endpoint in client.postgres.list_endpoints(branch):
        status = endpoint.status
        kind = getattr(getattr(status, "endpoint_type", None), "value", "")
        if endpoint.name and not kind.endswith("READ_ONLY"):
            return endpoint.name
    raise CredentialError(f"{branch} has no read-write endpoint; give endpoint={branch}/endpoints/…")


def user_name(client: WorkspaceClient) -> str | None:
    """The user name of whoever the client belongs to. Blocks for one request."""
    with quiet():
        return client.current_user.me().user_name


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, throttled, or a failure inside the workspace."""
    if isinstance(error, CredentialError):
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
    """Keep tokens out of what the SDK logs on this thread meanwhile."""
    logging.getLogger("databricks.sdk").addFilter(_REDACTING)  # has no effect a second time
    _scope.depth = getattr(_scope, "depth", 0) + 1
    try:
        yield
    finally:
        _scope.depth -= 1
