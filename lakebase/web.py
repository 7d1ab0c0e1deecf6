"""The user of a web request as one of the request's values, for every integration of `pooling.web`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pooling import LazyValue

from .errors import ConfigurationError
from .identity import UserIdentity

__all__ = ["request_identity"]


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
