"""Clients of a local Lakebase: by libpq, on a bare socket, and of its workspace API."""

import contextlib
import json
import socket
import ssl
import struct
import urllib.error
import urllib.request

import psycopg
import pytest


def connection_settings(lake, user, password=None):
    return {
        "host": lake.host,
        "port": lake.port,
        "dbname": lake.database,
        "user": user,
        "password": lake.mint(user) if password is None else password,
        "sslmode": "verify-full",
        "sslrootcert": str(lake.ca_file),
        "connect_timeout": 60,
    }


def connect(settings):
    """The role of a new connection, which is closed again."""
    # The connection's own block would leave it open if a commit fails.
    with contextlib.closing(psycopg.connect(**settings)) as connection:
        return connection.execute("select current_user").fetchone()[0]


def connects_eventually(settings, user):
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            assert connect(settings) == user
            return


def refusal(settings, **changes):
    """What a client is told that cannot connect."""
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**{**settings, **changes})
    return str(caught.value)


@contextlib.contextmanager
def raw_connection(lake, user="", *, body=None):
    """A socket with TLS on which the startup packet was sent, for that user or with these parameters."""
    with socket.create_connection((lake.host, lake.port), timeout=10) as plain:
        plain.sendall(struct.pack("!II", 8, 80877103))
        assert plain.recv(1) == b"S"
        context = ssl.create_default_context(cafile=str(lake.ca_file))
        with context.wrap_socket(plain, server_hostname=lake.host) as sock:
            if body is None:
                body = b"user\0" + user.encode() + b"\0database\0databricks_postgres\0\0"
            sock.sendall(struct.pack("!II", len(body) + 8, 196608) + body)
            yield sock


def receive(sock):
    """The type and body of a message of the server."""
    head = b""
    while len(head) < 5:
        head += sock.recv(5 - len(head))
    size = struct.unpack("!I", head[1:])[0] - 4
    body = b""
    while len(body) < size:
        body += sock.recv(size - len(body))
    return head[:1], body


def ask_workspace(lake, path, body=None, *, user=None):
    """The status and JSON body of a request to the workspace API, with that user's token if there is one."""
    headers = {} if user is None else {"Authorization": f"Bearer {lake.token(user)}"}
    request = urllib.request.Request(lake.workspace_url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
