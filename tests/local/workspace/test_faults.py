"""Each fault of the workspace API, as the SDK meets it."""

import time

import pytest
from databricks.sdk import WorkspaceClient, errors
from databricks.sdk.config import Config

from tests.local.clients import ask_workspace


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthenticated),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (500, errors.InternalError),
    ],
)
def test_errors_are_not_retried(lake, client, status, error):
    with lake.fail_workspace(status, path="/credentials") as fault, pytest.raises(error):
        client.postgres.generate_database_credential(endpoint=lake.endpoint)
    assert fault.hits == 1
    client.current_user.me()
    client.postgres.generate_database_credential(endpoint=lake.endpoint)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_workspace_is_asked_again(lake, user, status):
    patient = Config(host=lake.workspace_url, token=lake.token(user), auth_type="pat", retry_timeout_seconds=120)
    client = WorkspaceClient(config=patient)
    with lake.fail_workspace(status, count=1, retry_after=1) as fault:
        client.postgres.generate_database_credential(endpoint=lake.endpoint)
        assert fault.hits == 1


def test_a_fault_concerns_its_path_only(lake, client):
    with lake.fail_workspace(403, path="/postgres/credentials"):
        client.current_user.me()
        client.database.generate_database_credential(instance_names=[lake.instance_name])


def test_held_requests_are_answered_when_the_fault_is_cleared(lake, client, threads):
    with lake.hold_workspace(path="/credentials") as fault:
        minted = [threads.submit(client.postgres.generate_database_credential, lake.endpoint) for _ in range(8)]
        fault.wait(8, timeout=60)
        assert not any(future.done() for future in minted)
        client.current_user.me()
    assert len({future.result(60).token for future in minted}) == 8


def test_a_delayed_request_is_answered_later(lake, client):
    with lake.delay_workspace(0.2, path="/Me", count=1) as fault:
        began = time.monotonic()
        client.current_user.me()
        assert time.monotonic() - began >= 0.2
        assert fault.hits == 1


def test_every_error_status_can_be_asked_for(lake, user):
    with lake.fail_workspace(499, "gone", path="/credentials"):
        status, answer = ask_workspace(lake, "/api/2.0/database/credentials", b"{}", user=user)
        assert (status, answer["message"]) == (499, "gone")
