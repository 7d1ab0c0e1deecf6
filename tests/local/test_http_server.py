"""The HTTP server: what it refuses, how long it waits for a client, and failures inside of it."""

import contextlib
import json
import socket

import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from lakebase.local.http_server import HttpServer, Response
from lakebase.local.loop_thread import LoopThread
from tests.local.clients import ask_workspace
from tests.local.owner import children_of_this_process, temporary_directories


@pytest.fixture
def serve():
    """Starts a server on its own loop; returns what connects to it, and what waits until no client is connected."""
    loop, servers = LoopThread("test-http"), []
    loop.start()

    def started(handler, **settings):
        server = HttpServer(handler, **settings)
        servers.append(server)
        port = loop.run(server.open("127.0.0.1", 0))

        def wait_until_alone():
            while loop.call(lambda: server.connections):
                pass

        return (lambda: socket.create_connection(("127.0.0.1", port), timeout=60)), wait_until_alone

    yield started
    for server in servers:
        loop.run(server.close())
    loop.stop()


async def echo(request):
    return Response(200, request.json())


def exchange(sock, data):
    """All that the server sends until it closes the connection."""
    sock.sendall(data)
    answer = b""
    while chunk := sock.recv(65_536):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def post(body, *headers, size=None):
    lines = ("POST / HTTP/1.1", f"Content-Length: {len(body) if size is None else size}", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_failure_of_the_handler_is_logged_and_answered_with_500(serve, caplog):
    async def fail(request):
        raise KeyError(request.path)

    connect, _ = serve(fail)
    with connect() as sock:
        status, body = exchange(sock, post(b"{}"))
    assert (status, json.loads(body)["message"]) == (500, "the local server failed; see its log")
    assert "no answer to POST /" in caplog.text


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"nonsense\r\n\r\n", 400, b"no HTTP request"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400, b"no URL"),
        (post(b"{}", size="1_0"), 400, b"Content-Length must be a number of bytes"),
        (post(b"{}", size=1_000_001), 413, b"a body may have 1000000 bytes"),
        (post(b"", size="9" * 5000), 413, b"a body may have 1000000 bytes"),
        (post(b"x" * 3_000_000), 413, b"a body may have 1000000 bytes"),
        (post(b"{}", "X: " + "x" * 40_000), 431, b"the head of a request may have 32768 bytes"),
        (post(b"{}", "Transfer-Encoding: chunked"), 411, b"a body must come with its Content-Length"),
    ],
)
def test_what_it_does_not_take_is_refused_before_it_is_read(serve, data, status, words):
    connect, _ = serve(echo)
    with connect() as sock:
        found, body = exchange(sock, data)
    assert found == status
    assert words in body


def test_a_client_that_sends_too_slowly_is_dropped_and_others_are_served(serve):
    connect, _ = serve(echo, timeout=0.2)
    with connect() as silent, connect() as slow:
        slow.sendall(post(b"", size=10) + b"{")
        with connect() as sock:
            assert exchange(sock, post(b'{"a": 1}')) == (200, b'{"a": 1}')
        assert slow.recv(1) == b""
        assert silent.recv(1) == b""


def test_a_client_that_takes_no_answer_is_dropped(serve):
    async def large(request):
        return Response(200, "x" * 30_000_000)

    connect, wait_until_alone = serve(large, timeout=0.2)
    with connect() as sock:
        sock.sendall(post(b"{}"))
        assert sock.recv(1, socket.MSG_PEEK)
        wait_until_alone()
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := sock.recv(1_000_000):
                received += len(chunk)
    assert received < 30_000_000


def test_more_connections_than_the_limit_are_dropped_and_those_open_are_served(serve):
    connect, wait_until_alone = serve(echo, most_connections=2)
    with connect() as one, connect() as two:
        for sock in (one, two):
            sock.sendall(post(b"{}").replace(b"close", b"keep-alive"))
            assert sock.recv(8) == b"HTTP/1.1"
        with connect() as third, contextlib.suppress(ConnectionResetError):
            assert third.recv(1) == b""
    wait_until_alone()
    with connect() as sock:
        assert exchange(sock, post(b"{}")) == (200, b"{}")


def test_a_client_that_asks_first_is_told_to_go_on(serve):
    connect, _ = serve(echo)
    with connect() as sock:
        sock.sendall(post(b"", "Expect: 100-continue", size=2))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert exchange(sock, b"{}") == (200, b"{}")


def test_the_answer_to_a_head_has_no_body(serve):
    connect, _ = serve(echo)
    with connect() as sock:
        assert exchange(sock, post(b"{}").replace(b"POST", b"HEAD")) == (200, b"")


@pytest.mark.parametrize("depth", [101, 900, 200_000])
def test_a_body_that_is_nested_too_deeply_is_refused(lake, user, depth):
    body = b'{"claims":' + b"[" * depth + b"]" * depth + b"}"
    status, answer = ask_workspace(lake, "/api/2.0/database/credentials", body, user=user)
    assert (status, answer["message"]) == (400, "a body may be nested 100 levels deep")
    assert ask_workspace(lake, "/api/2.0/database/credentials", body[:-1], user=user)[0] == 400


def test_a_taken_port_of_the_workspace_is_named_and_nothing_stays(own_tempdir):
    running = children_of_this_process()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = rf"cannot listen on 127.0.0.1:{port}: Address already in use\. Give another workspace_port="
        with pytest.raises(LocalLakebaseError, match=words):
            LocalLakebase(workspace_port=port, pooler="off").start()
    assert (children_of_this_process(), temporary_directories()) == (running, set())
