"""Where a workspace says how to log in, and where a service principal gets its token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..http_server import Request, Response
from .answers import ApiError

if TYPE_CHECKING:
    from .issuer import Issuer, Principal

__all__ = ["OAuth"]

_ACCOUNT_ID = "00000000-0000-4000-8000-00000000acc0"
_WORKSPACE_ID = "1000000000000001"


class OAuth:
    """
    Says who sends a request.

    Args:
        issuer: Knows the tokens and secrets.
        url: Returns the workspace's own address.
    """

    def __init__(self, issuer: Issuer, url: Callable[[], str]) -> None:
        self._issuer = issuer
        self._url = url

    def principal(self, request: Request) -> Principal:
        """
        The principal whose token the request has.

        Raises:
            ApiError: It has none, or one that is not valid.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ApiError(
                401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API."
            )
        principal = self._issuer.principal(token.strip())
        if principal is None:
            raise ApiError(403, "PERMISSION_DENIED", "Invalid access token.")
        return principal

    def discovery(self) -> dict[str, str]:
        """`/.well-known/databricks-config`."""
        return {
            "oidc_endpoint": f"{self._url()}/oidc",
            "account_id": _ACCOUNT_ID,
            "workspace_id": _WORKSPACE_ID,
            "cloud": "AWS",
        }

    def server_metadata(self) -> dict[str, Any]:
        """`/oidc/.well-known/oauth-authorization-server`."""
        base = f"{self._url()}/oidc"
        return {
            "issuer": base,
            "authorization_endpoint": f"{base}/v1/authorize",
            "token_endpoint": f"{base}/v1/token",
            "grant_types_supported": ["client_credentials"],
        }

    def token(self, request: Request) -> Response:
        """`/oidc/v1/token`: a service principal's token for its secret."""
        # Errors of this one are OAuth's: https://www.rfc-editor.org/rfc/rfc6749#section-5.2
        form = request.form()
        if form.get("grant_type") != "client_credentials":
            return Response(400, {"error": "unsupported_grant_type", "error_description": "use client_credentials"})
        client_id, client_secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                client_id, _, client_secret = base64.b64decode(encoded).decode().partition(":")
            except (binascii.Error, ValueError):
                pass  # no client has an empty id
        issued = self._issuer.access_token(client_id, client_secret)
        if issued is None:
            return Response(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
        token, lifetime = issued
        return Response(
            200, {"access_token": token, "token_type": "Bearer", "expires_in": int(lifetime), "scope": "all-apis"}
        )
