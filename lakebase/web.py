"""What an app on Lakebase gives to every integration of `pooling.web`: a request's user, and the answers to errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import psycopg

from pooling import LazyValue
from pooling.web import errors as pooling_answers
from pooling.web.errors import ErrorAnswer, try_later, unauthorized

from .errors import (
    CallbackError,
    ConfigurationError,
    ConnectFailure,
    CredentialError,
    IdentityError,
    LoginError,
)
from .identity import TOKEN_HEADER, UserIdentity

__all__ = ["answer_error", "request_identity"]


def request_identity(request: Any) -> dict[str, LazyValue[UserIdentity]]:
    """
    The values of a request that has a user: `install(app, container, values=request_identity)`.

    `ctx["identity"]` is then the `UserIdentity` in the request's headers. They are read once, when the identity is
    first asked for: a request that needs no user, such as one for `/health`, may come without. Otherwise it is an
    `IdentityError`, which the web integrations answer with status 401.

    Args:
        request: An ASGI scope, a WSGI environ, a Django request, or any object with `headers`.

    Raises:
        ConfigurationError: It is something else.
    """
    return {"identity": LazyValue(partial(UserIdentity.from_headers, _headers(request)))}


def _headers(request: Any) -> Any:
    if isinstance(request, Mapping):
        if "REQUEST_METHOD" in request:
            return request
        if "headers" in request:
            return request["headers"]
    elif (headers := getattr(request, "META", None) or getattr(request, "headers", None)) is not None:
        return headers
    raise ConfigurationError(
        f"a request of type {type(request).__name__}: expected an ASGI scope, a WSGI environ, a Django request, or an "
        "object with headers"
    )


# --- errors ----------------------------------------------------------------------------------------------------------

_SIGN_IN = "the workspace does not accept your token, which may have expired; sign in again"

#: For clients. What an app's developer has to know, such as the headers that are missing, is in the error and its log.
_NO_USER = "sign in: this app got no user for your request"
_NO_PROOF = "sign in again: your token does not prove who you are"

_REFUSED = {
    "token": unauthorized(_SIGN_IN),
    "scope": ErrorAnswer(
        403, "your token does not allow this app to use the database: the scope 'postgres' is missing"
    ),
    "permission": ErrorAnswer(403, "you may not use this app's database"),
}

_NO_LOGIN = ErrorAnswer(403, "the database refuses your login; ask for a role in it, or sign in again")

#: Failed logins that concern the user, and not how the app is set up.
_OF_THE_USER = {ConnectFailure.LOGIN_REJECTED, ConnectFailure.NO_ROLE, ConnectFailure.NO_PERMISSION}


def answer_error(error: BaseException) -> ErrorAnswer | None:
    """
    How an error of a pool, or of the database, is answered: `install(app, container, errors=answer_error)`.

    - 401 with `WWW-Authenticate: Bearer`: a request without a user, or whose token the workspace does not accept.
    - 403: a user whose token lacks the scope `postgres`, who may not use the endpoint, has no role or may not log in;
      or a statement that the role has no right to.
    - 503 with `Retry-After`: no connection in time, a pool that is closing, a server that refuses connections, a
      connection that broke, a workspace that throttles, fails or does not answer.
    - `None`, so mostly 500: anything else, such as a mistake in the app's own settings. Whoever is refused with the
      app's own identity is not the user, so that is one, too.

    Errors of SQLAlchemy and Django are answered as the driver's error that they carry. It is
    `pooling.web.errors.answer_error` with what Lakebase adds, pure, and may be called from an app's own handlers.
    """
    error = _of_the_driver(error)
    if isinstance(error, IdentityError):
        return _answer_no_user(error)
    if isinstance(error, CredentialError):
        return _answer_no_credential(error)
    if isinstance(error, LoginError):
        is_users = error.key is not None and error.failure in _OF_THE_USER
        return _NO_LOGIN if is_users else None
    found = pooling_answers.answer_error(error)
    if found is not None:
        cause = error.__cause__
        return try_later(cause.retry_after) if isinstance(cause, CredentialError) else found
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ErrorAnswer(403, "the database does not permit you to do this")
    if isinstance(error, psycopg.OperationalError) and not isinstance(error, CallbackError):
        return try_later(detail="the database is busy or not reachable; try again in a moment")
    return None


def _answer_no_user(error: IdentityError) -> ErrorAnswer:
    if error.header != TOKEN_HEADER:
        return unauthorized(_NO_USER)
    return unauthorized(_NO_PROOF if error.__cause__ is None else _SIGN_IN)  # the cause is the workspace's refusal


def _answer_no_credential(error: CredentialError) -> ErrorAnswer | None:
    if error.is_transient:
        return try_later(error.retry_after, "the workspace is busy or not reachable; try again in a moment")
    return None if error.refusal is None else _REFUSED[error.refusal]


def _of_the_driver(error: BaseException) -> BaseException:
    """The driver's error, if another library has wrapped it."""
    inner = getattr(error, "orig", None)  # of SQLAlchemy
    if inner is None and type(error).__module__ == "django.db.utils":
        inner = error.__cause__
    return inner if isinstance(inner, psycopg.Error) else error
