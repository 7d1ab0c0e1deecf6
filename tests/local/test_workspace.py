"""The unmodified SDK against the workspace API."""

import datetime as dt
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from databricks.sdk import WorkspaceClient, errors
from databricks.sdk.config import Config
from databricks.sdk.service.postgres import (
    EndpointStatusState,
    RequestedClaims,
    RequestedClaimsPermissionSet,
    RequestedResource,
)
from google.protobuf.duration_pb2 import Duration

from tests.local.conftest import connection_settings


@pytest.fixture
def client(lake, user):
    return lake.workspace_client(user)


def connects(lake, user, password):
    with psycopg.connect(**connection_settings(lake, user, password)) as connection:
        return connection.execute("select current_user").fetchone() == (user,)


def test_the_client_knows_whose_token_it_has(client, user):
    me = client.current_user.me()
    assert (me.user_name, me.active) == (user, True)
    assert me.id
    assert client.config.workspace_id


def test_a_credential_for_the_endpoint_is_the_password_at_login(lake, user, client):
    credential = client.postgres.generate_database_credential(endpoint=lake.endpoint)
    left = credential.expire_time.ToDatetime(dt.UTC) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=59) < left <= dt.timedelta(hours=1)
    assert len(credential.token) > 1000
    assert credential.token.count(".") == 2
    assert connects(lake, user, credential.token)


def test_a_credential_for_the_instance_is_the_password_at_login(lake, user, client):
    credential = client.database.generate_database_credential(instance_names=[lake.instance_name], request_id="r1")
    assert dt.datetime.fromisoformat(credential.expiration_time) > dt.datetime.now(dt.UTC)
    assert connects(lake, user, credential.token)


def test_a_time_to_live_and_claims_are_taken(lake, user, client):
    claims = [RequestedClaims(RequestedClaimsPermissionSet.READ_ONLY, [RequestedResource("main.sales.orders")])]
    credential = client.postgres.generate_database_credential(lake.endpoint, claims=claims, ttl=Duration(seconds=600))
    left = credential.expire_time.ToDatetime(dt.UTC) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=9) < left <= dt.timedelta(minutes=10)
    assert connects(lake, user, credential.token)


@pytest.mark.parametrize("seconds", [299, 3601])
def test_a_time_to_live_out_of_bounds_is_refused(lake, client, seconds):
    with pytest.raises(errors.InvalidParameterValue, match="300 and 3600"):
        client.postgres.generate_database_credential(lake.endpoint, ttl=Duration(seconds=seconds))


def test_a_service_principal_mints_with_its_secret(lake):
    client = WorkspaceClient(host=lake.workspace_url, client_id=lake.client_id, client_secret=lake.client_secret)
    assert client.config.auth_type == "oauth-m2m"
    assert client.current_user.me().user_name == lake.client_id
    token = client.postgres.generate_database_credential(endpoint=lake.endpoint).token
    with psycopg.connect(**connection_settings(lake, lake.client_id, token)) as connection:
        connection.execute("create schema app")
        connection.execute("create table app.things (i int)")
        connection.rollback()


def test_a_wrong_secret_is_refused_without_retries(lake):
    config = Config(host=lake.workspace_url, client_id=lake.client_id, client_secret="wrong", retry_timeout_seconds=5)
    with pytest.raises(ValueError, match="invalid_client"):
        WorkspaceClient(config=config).current_user.me()


def test_the_environment_of_an_app_is_all_that_the_sdk_and_libpq_need(lake, monkeypatch):
    for name, value in lake.environment().items():
        monkeypatch.setenv(name, value)
    token = WorkspaceClient().postgres.generate_database_credential(endpoint=lake.endpoint).token
    with psycopg.connect(password=token) as connection:
        assert connection.execute("select current_user, current_database()").fetchone() == (
            lake.client_id,
            lake.database,
        )


def test_endpoints_tell_their_hosts_and_state(lake, client):
    endpoint = client.postgres.get_endpoint(lake.endpoint)
    assert endpoint.name == lake.endpoint
    assert endpoint.status.current_state is EndpointStatusState.ACTIVE
    assert endpoint.status.hosts.host == lake.host
    assert endpoint.status.hosts.read_only_host == lake.read_only_host
    assert endpoint.status.hosts.read_write_pooled_host == lake.pooled_host
    branch = lake.endpoint.rpartition("/endpoints/")[0]
    assert [found.name for found in client.postgres.list_endpoints(branch)] == [lake.endpoint]
    assert client.postgres.get_branch(branch).name == branch
    lake.suspend()
    assert client.postgres.get_endpoint(lake.endpoint).status.current_state is EndpointStatusState.IDLE


def test_instances_tell_their_names(lake, client):
    instance = client.database.get_database_instance(lake.instance_name)
    assert (instance.read_write_dns, instance.read_only_dns) == (lake.host, lake.read_only_host)
    assert [found.name for found in client.database.list_database_instances()] == [lake.instance_name]


def test_what_does_not_exist_is_not_found(lake, client):
    for call in (
        lambda: client.postgres.generate_database_credential(endpoint="projects/other/branches/b/endpoints/e"),
        lambda: client.postgres.get_endpoint("projects/other/branches/b/endpoints/e"),
        lambda: client.database.get_database_instance("other"),
        lambda: client.database.generate_database_credential(instance_names=["other"]),
        lambda: client.jobs.get(1),
    ):
        with pytest.raises(errors.NotFound):
            call()


def test_an_unknown_or_revoked_token_is_refused(lake, user, client):
    lake.revoke(user)
    with pytest.raises(errors.PermissionDenied, match="Invalid access token"):
        client.current_user.me()
    status, body = raw(lake, "/api/2.0/preview/scim/v2/Me")
    assert status == 401
    assert body["error_code"] == "UNAUTHENTICATED"


def test_earlier_workspace_tokens_stay_valid(lake, user, client):
    second = lake.add_user(user)
    assert second != client.config.token
    assert client.current_user.me().user_name == user
    assert lake.workspace_client(user).current_user.me().user_name == user


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
def test_errors_come_on_demand_and_are_not_retried(lake, client, status, error):
    with lake.fail_workspace(status, path="/credentials") as fault, pytest.raises(error):
        client.postgres.generate_database_credential(endpoint=lake.endpoint)
    assert fault.hits == 1
    client.current_user.me()
    client.postgres.generate_database_credential(endpoint=lake.endpoint)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_workspace_is_asked_again_after_the_time_it_names(lake, client, status):
    with lake.fail_workspace(status, count=1, retry_after=1) as fault:
        client.postgres.generate_database_credential(endpoint=lake.endpoint)
        assert fault.hits == 1


def test_a_fault_concerns_its_path_only(lake, client):
    with lake.fail_workspace(403, path="/postgres/credentials"):
        client.current_user.me()
        client.database.generate_database_credential(instance_names=[lake.instance_name])


def test_held_requests_are_answered_when_the_fault_is_cleared(lake, user, client):
    with ThreadPoolExecutor(8) as threads:
        with lake.hold_workspace(path="/credentials") as fault:
            minted = [threads.submit(client.postgres.generate_database_credential, lake.endpoint) for _ in range(8)]
            fault.wait(8)
            assert not any(future.done() for future in minted)
            client.current_user.me()
        assert len({future.result(20).token for future in minted}) == 8


def test_a_slow_workspace_answers_in_the_end(lake, client):
    with lake.delay_workspace(0.2, path="/Me", count=1) as fault:
        began = time.monotonic()
        client.current_user.me()
        assert time.monotonic() - began >= 0.2
        assert fault.hits == 1


def test_the_admin_is_a_user_of_the_workspace_too(lake):
    assert lake.workspace_client().current_user.me().user_name == lake.admin_user
    assert lake.workspace_client().config.token == lake.admin_token


def test_calls_and_credentials_are_counted(lake, user, client):
    def counts():
        stats = lake.stats()
        return stats.user(user).minted, stats.api_calls.get("POST /api/2.0/postgres/credentials", 0)

    minted, calls = counts()
    for _ in range(3):
        client.postgres.generate_database_credential(endpoint=lake.endpoint)
    assert counts() == (minted + 3, calls + 3)


# What no SDK sends


def raw(lake, path, body=None, **headers):
    request = urllib.request.Request(lake.workspace_url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"ttl": "soon", "endpoint": "%s"}', b"{}"])
def test_a_body_that_makes_no_sense_is_refused(lake, user, body):
    body = body.replace(b"%s", lake.endpoint.encode())
    status, found = raw(lake, "/api/2.0/postgres/credentials", body, Authorization=f"Bearer {lake.token(user)}")
    assert (status, found["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_method_that_is_not_offered_is_refused(lake, user):
    status, _ = raw(lake, "/api/2.0/preview/scim/v2/Me", b"{}", Authorization=f"Bearer {lake.token(user)}")
    assert status == 405


def test_no_token_is_in_an_answer_that_is_no_credential(lake, user):
    token = lake.token(user)
    for path in ("/api/2.0/preview/scim/v2/Me", f"/api/2.0/postgres/{lake.endpoint}", "/nothing"):
        _, body = raw(lake, path, Authorization=f"Bearer {token}")
        assert token not in json.dumps(body)


def posted(lake, user, path, body):
    request = urllib.request.Request(
        lake.workspace_url + path, body, {"Authorization": f"Bearer {lake.token(user)}"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=10):
        pass
    with refused.value as error:
        return error.code, json.load(error)["message"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("database", b'{"instance_names": 5}', "instance_names must be a list"),
        ("database", b'{"instance_names": "local"}', "instance_names must be a list"),
        ("database", b"[]", "not a JSON object"),
        ("database", b"{", "Expecting property name"),
        ("postgres", b'{"endpoint": "ENDPOINT", "expire_time": "2030-01-01T00:00:00"}', "offset from UTC"),
        ("postgres", b'{"endpoint": "ENDPOINT", "ttl": {"seconds": 600}}', "ttl must be a duration"),
    ],
)
def test_a_body_that_makes_no_sense_is_answered_with_400(lake, user, path, body, words):
    body = body.replace(b"ENDPOINT", lake.endpoint.encode())
    status, message = posted(lake, user, f"/api/2.0/{path}/credentials", body)
    assert status == 400
    assert words in message


def test_a_failure_of_our_own_is_logged_and_answered_with_500(lake, user, caplog):
    # Nested too deep for Python's parser: nothing that anybody looks out for.
    status, message = posted(lake, user, "/api/2.0/database/credentials", b'{"claims":' + b"[" * 200_000)
    assert (status, message) == (500, "the local server failed; see its log")
    assert "no answer to POST /api/2.0/database/credentials" in caplog.text
    assert lake.workspace_client(user).current_user.me().user_name == user


def test_any_status_of_an_error_can_be_asked_for(lake, user):
    with lake.fail_workspace(499, "gone", path="/credentials"):
        assert posted(lake, user, "/api/2.0/database/credentials", b"{}") == (499, "gone")
