"""The HTTP server: bad requests, and failures of its own."""

import json
import socket
import urllib.error
import urllib.request

import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.owner import children_of_this_process, temporary_directories


@pytest.fixture
def client(lake, user):
    return lake.workspace_client(user)


def raw(lake, path, body=None, **headers):
    request = urllib.request.Request(lake.workspace_url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def posted(lake, user, path, body):
    request = urllib.request.Request(
        lake.workspace_url + path, body, {"Authorization": f"Bearer {lake.token(user)}"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=10):
        pass
    with refused.value as error:
        return error.code, json.load(error)["message"]


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"ttl": "soon", "endpoint": "%s"}', b"{}"])
def test_a_body_that_makes_no_sense_is_refused(lake, user, body):
    body = body.replace(b"%s", lake.endpoint.encode())
    status, found = raw(lake, "/api/2.0/postgres/credentials", body, Authorization=f"Bearer {lake.token(user)}")
    assert (status, found["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_method_that_is_not_offered_is_refused(lake, user):
    status, _ = raw(lake, "/api/2.0/preview/scim/v2/Me", b"{}", Authorization=f"Bearer {lake.token(user)}")
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
    status, message = posted(lake, user, f"/api/2.0/{path}/credentials", body)
    assert status == 400
    assert words in message


def test_a_failure_of_the_server_is_logged_and_answered_with_500(lake, user, caplog):
    # Nested too deep for Python's parser: nothing that anybody looks out for.
    status, message = posted(lake, user, "/api/2.0/database/credentials", b'{"claims":' + b"[" * 200_000)
    assert (status, message) == (500, "the local server failed; see its log")
    assert "no answer to POST /api/2.0/database/credentials" in caplog.text
    assert lake.workspace_client(user).current_user.me().user_name == user


def test_a_taken_port_of_the_workspace_is_named_and_nothing_stays(own_tempdir):
    running = children_of_this_process()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = rf"cannot listen on 127.0.0.1:{port}: Address already in use\. Give another workspace_port="
        with pytest.raises(LocalLakebaseError, match=words):
            LocalLakebase(workspace_port=port, pooler="off").start()
    assert (children_of_this_process(), temporary_directories()) == (running, set())
