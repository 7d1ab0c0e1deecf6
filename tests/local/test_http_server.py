"""The HTTP server: a taken port, and failures inside the server."""

import socket

import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local.clients import ask_workspace
from tests.local.owner import children_of_this_process, temporary_directories


def test_a_failure_of_the_server_is_logged_and_answered_with_500(lake, user, caplog):
    # Nested too deep for Python's parser: an exception that the API does not handle.
    body = b'{"claims":' + b"[" * 200_000
    status, answer = ask_workspace(lake, "/api/2.0/database/credentials", body, user=user)
    assert (status, answer["message"]) == (500, "the local server failed; see its log")
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
