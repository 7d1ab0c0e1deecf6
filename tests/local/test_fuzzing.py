"""Senseless input at each of the three ports of `lakebase local up`."""

import contextlib
import json
import random
import socket
import ssl
import stat
import struct
from pathlib import Path

import psutil

from lakebase.local.order_client import send_order
from lakebase.local.registry import find_records
from tests.local.clients import connect
from tests.local.commands import Up

SEED = 20_261_130
CLIENTS = 200
SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST, VERSION_3 = 80877103, 80877104, 80877102, 196608

VALUES = (
    None, True, 0, -1, 1e308, 10**30, "", "x" * 5000, "\0", "\ud800", "\x1b[31m", "ü", [], {}, [[]], {"a": {"b": []}},
    ["local"], "600s", "9" * 400 + "s",
    "0001-01-01T00:00:00+23:59", "projects/local/branches/production/endpoints/primary",
)  # fmt: skip
FIELDS = (
    "endpoint", "ttl", "expire_time", "claims", "instance_names", "request_id", "user", "wake_after", "spec", "name",
    "role", "scopes",
)  # fmt: skip


API = "/api/2.0/"
PATHS = (
    "/.well-known/databricks-config",
    "/oidc/v1/token",
    API + "preview/scim/v2/Me",
    API + "postgres/credentials",
    API + "postgres/projects",
    API + "postgres/projects/local/branches/production/endpoints/primary",
    API + "postgres/projects/local/branches",
    API + "postgres/projects/local/branches/production/endpoints",
    API + "postgres/projects/local/branches/production/roles",
    API + "postgres/projects/local/branches/production/roles/r",
    API + "postgres/projects/local/branches/production/databases?database_id=d",
    API + "database/credentials",
    API + "database/instances/local",
)
ORDERS = ("/status", "/token", "/password", "/suspend", "/resume")


def deep(depth):
    return b'{"claims":' + b"[" * depth + b"]" * depth + b"}"


class Fuzzer:
    """One client's senseless input: the same in each run."""

    def __init__(self, port, number):
        self.random = random.Random(f"{SEED} {port} {number}")
        self.choice = self.random.choice

    def chance(self, share):
        return self.random.random() < share

    def mutate(self, data):
        """The bytes with some of them changed, cut off, repeated or inserted."""
        data = bytearray(data)
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(data) + 1)
            change = self.random.randrange(5)
            if change == 0 and at < len(data):
                data[at] = self.random.randrange(256)
            elif change == 1:
                del data[at:]
            elif change == 2:
                data[at:at] = self.random.randbytes(self.choice((1, 4, 300)))
            elif change == 3:
                data += data[at:]
            elif at + 4 <= len(data):
                data[at : at + 4] = struct.pack("!I", self.choice((0, 3, 2**31 - 1, 2**32 - 1)))
        return bytes(data)

    # Postgres

    def startup(self):
        parameters = [b"user", b"ann@corp.example", b"database", b"databricks_postgres"]
        if self.chance(0.3):
            parameters += [b"user", b"postgres"]
        if self.chance(0.3):
            parameters += [self.choice((b"replication", b"options", b"_pq_.x")), b"database"]
        if self.chance(0.3):
            parameters[1] = self.choice((b"", b"\xff\xfe", b"a\x1b[2Jb", b"x" * 3000, b"postgres", "ü".encode()))
        code = self.choice((VERSION_3, VERSION_3, VERSION_3 + 2, 2 << 16, 4 << 16, CANCEL_REQUEST))
        body = b"\0".join(parameters) + b"\0\0"
        return struct.pack("!II", len(body) + 8, code) + body

    def password(self):
        """What a client may send in answer to the request for a password."""
        kind = self.choice(b"pQXBPE\0\xff")
        return bytes([kind]) + struct.pack("!I", self.choice((4, 9, 0, 70_000, 2**31))) + b"wrong\0"

    # HTTP

    def body(self):
        if self.chance(0.2):
            return deep(self.choice((90, 900, 100_000)))
        if self.chance(0.1):
            return self.choice((b"{", b"[]", b"\xff\xff", b"1" * 5000, b'"x"', b"NaN", b'{"a":1,"a":2}'))
        found = {self.choice(FIELDS): self.choice(VALUES) for _ in range(self.random.randrange(5))}
        return json.dumps(found).encode()

    def request(self, paths, token):
        method = self.choice(("GET", "POST", "POST", "PATCH", "DELETE", "HEAD", "", "G\0T"))
        path = self.choice(paths)
        if self.chance(0.2):
            path += self.choice(("/", "//", "?a=b&a", "?" + "a&" * 2000, "%00", "%ff", "/../x", "[", "é"))
        body = self.body()
        size = str(len(body)) if self.chance(0.8) else self.choice(("-1", "1_0", "+3", "x", "9" * 30, "٣", ""))
        headers = [f"Host: 127.0.0.1\r\nContent-Length: {size}"]
        if self.chance(0.9):
            headers.append(f"Authorization: Bearer {token if self.chance(0.9) else 'é'}")
        if self.chance(0.2):
            extra = ("Transfer-Encoding: chunked", "X: " + "x" * 100_000, "no colon", "Content-Length: 5", "\0: \0")
            headers.append(self.choice(extra))
        if self.chance(0.1):
            headers += ["A: b"] * 2000
        head = f"{method} {path} HTTP/{self.choice(('1.1', '1.1', '1.0', '2', '1.'))}\r\n" + "\r\n".join(headers)
        return head.encode("utf-8") + b"\r\n\r\n" + body


def leave(fuzzer, sock):
    """What comes until the other end closes; or nothing, after hanging up with a reset."""
    if fuzzer.chance(0.3):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return b""
    data = b""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while chunk := sock.recv(65_536):
            data += chunk
    return data


def fuzz_gateway(fuzzer, port, context):
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as sock,
        contextlib.suppress(ConnectionError, ssl.SSLError),
    ):
        if fuzzer.chance(0.3):
            sock.sendall(fuzzer.choice((b"", b"\0\0\0", fuzzer.random.randbytes(200), fuzzer.startup())))
            leave(fuzzer, sock)
            return
        if fuzzer.chance(0.2):
            sock.sendall(struct.pack("!II", 8, GSSENC_REQUEST) * fuzzer.choice((1, 2)))
            sock.recv(1)
        sock.sendall(struct.pack("!II", 8, SSL_REQUEST))
        sock.recv(1)
        if fuzzer.chance(0.3):
            sock.sendall(fuzzer.choice((b"\x16\x03\x01\x00\xff\x01", fuzzer.random.randbytes(600), fuzzer.startup())))
            leave(fuzzer, sock)
            return
        with context.wrap_socket(sock) as encrypted:
            packet = fuzzer.startup()
            encrypted.sendall(fuzzer.mutate(packet) if fuzzer.chance(0.5) else packet)
            if fuzzer.chance(0.7):
                encrypted.sendall(fuzzer.password())
            leave(fuzzer, encrypted)


def fuzz_http(fuzzer, port, paths, token):
    """The first answer to some requests in a row, if any came."""
    data = b"".join(fuzzer.request(paths, token) for _ in range(fuzzer.choice((1, 1, 3))))
    if fuzzer.chance(0.3):
        data = fuzzer.mutate(data)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        return leave(fuzzer, sock)


def assert_is_an_answer(answer):
    """It is JSON, and no failure of the server's own."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert 200 <= status < 500, answer
    assert b"application/json" in head
    assert body.startswith((b"{", b"HTTP/1.1 ")) or not body  # after a HEAD, there may be the next answer


def test_whatever_clients_send_is_answered_or_dropped_and_leaves_no_traceback(home, threads):
    errors = home / "errors"
    with errors.open("w") as file, Up("--user", "ann@corp.example", errors=file) as up:
        (record,) = find_records()
        context = ssl.create_default_context(cafile=up.environment["PGSSLROOTCERT"])
        context.check_hostname = False
        token = send_order(record.orders_address, record.orders_token, "token", user=record.admin)["token"]
        ports = {
            "workspace": (record.workspace_url, PATHS, token),
            "orders": (record.orders_address, ORDERS, record.orders_token),
        }
        jobs = [threads.submit(fuzz_gateway, Fuzzer("gateway", i), record.port, context) for i in range(CLIENTS)]
        for job in jobs:
            job.result()
        for name, (url, paths, secret) in ports.items():
            port = int(url.rpartition(":")[2])
            jobs = [threads.submit(fuzz_http, Fuzzer(name, i), port, paths, secret) for i in range(CLIENTS)]
            answers = [answer for job in jobs if (answer := job.result())]
            assert len(answers) > CLIENTS / 3
            for answer in answers:
                assert_is_an_answer(answer)
        assert_it_still_works(record, up, token)
        assert up.end()[0] == 0
    assert errors.read_text(encoding="utf-8").strip() == "# stopped"


def assert_it_still_works(record, up, token):
    password = send_order(record.orders_address, record.orders_token, "password", user="ann@corp.example")["password"]
    send_order(record.orders_address, record.orders_token, "resume")
    settings = {
        "host": record.host,
        "port": record.port,
        "dbname": record.database,
        "user": "ann@corp.example",
        "password": password,
        "sslmode": "verify-full",
        "sslrootcert": up.environment["PGSSLROOTCERT"],
    }
    assert connect(settings) == "ann@corp.example"
    # The sockets of all these clients are closed, and none has become a session. The gateway sees a moment later
    # that the last one has gone; one that stayed would have the test run into its timeout.
    while (found := send_order(record.orders_address, record.orders_token, "status"))["open"]:
        pass
    assert set(found["users"]) == {"ann@corp.example"}
    connections = psutil.Process(up.process.pid).net_connections()
    assert len([one for one in connections if one.status == "ESTABLISHED"]) < 20
    # All of it is on loopback, private, and in no list of processes.
    assert {one.laddr.ip for one in connections if one.status == "LISTEN"} <= {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
    processes = [psutil.Process(up.process.pid), *up.started]
    commands = ""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that only helped to start
            commands += " ".join(process.cmdline())
    assert "postgres" in commands
    assert not [secret for secret in (password, token, record.orders_token) if secret in commands]
    for place in (Path(record.run_dir), Path(record.run_dir).parent, Path(up.environment["PGSSLROOTCERT"]).parent):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0, place
