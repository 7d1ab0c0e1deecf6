"""Users, and which of their workspace tokens are valid."""

import pytest
from databricks.sdk import errors

from tests.local.clients import ask_workspace


def test_an_unknown_or_revoked_token_is_refused(lake, user, client):
    lake.revoke(user)
    with pytest.raises(errors.PermissionDenied, match="Invalid access token"):
        client.current_user.me()
    status, body = ask_workspace(lake, "/api/2.0/preview/scim/v2/Me")
    assert status == 401
    assert body["error_code"] == "UNAUTHENTICATED"


def test_earlier_workspace_tokens_stay_valid(lake, user, client):
    second = lake.add_user(user)
    assert second != client.config.token
    assert client.current_user.me().user_name == user
    assert lake.workspace_client(user).current_user.me().user_name == user
