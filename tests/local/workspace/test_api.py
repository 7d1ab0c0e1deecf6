"""The workspace API, asked by the unmodified SDK."""

import datetime as dt
import json

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

from tests.local.clients import ask_workspace, connection_settings


def connects(lake, user, password):
    with psycopg.connect(**connection_settings(lake, user, password)) as connection:
        return connection.execute("select current_user").fetchone() == (user,)


def test_the_token_says_which_user_the_client_is(client, user):
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


def test_an_endpoint_has_its_hosts_and_state(lake, client):
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


def test_an_instance_has_its_name_and_hosts(lake, client):
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


def test_no_token_is_in_an_answer_that_is_no_credential(lake, user):
    token = lake.token(user)
    for path in ("/api/2.0/preview/scim/v2/Me", f"/api/2.0/postgres/{lake.endpoint}", "/nothing"):
        _, body = ask_workspace(lake, path, user=user)
        assert token not in json.dumps(body)


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"ttl": "soon", "endpoint": "%s"}', b"{}"])
def test_a_body_that_makes_no_sense_is_refused(lake, user, body):
    body = body.replace(b"%s", lake.endpoint.encode())
    status, found = ask_workspace(lake, "/api/2.0/postgres/credentials", body, user=user)
    assert (status, found["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_method_that_is_not_offered_is_refused(lake, user):
    status, _ = ask_workspace(lake, "/api/2.0/preview/scim/v2/Me", b"{}", user=user)
    assert status == 405


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
    status, answer = ask_workspace(lake, f"/api/2.0/{path}/credentials", body, user=user)
    assert status == 400
    assert words in answer["message"]
