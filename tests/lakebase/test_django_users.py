"""Django's ORM as the user of each request, on real servers."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from lakebase import ConfigurationError

pytest.importorskip("django")

from tests.docs.pages import ROOT
from tests.web.servers import PLAIN

SERVERS = {
    "wsgi": "gunicorn -k gthread --threads 3 --bind fd://{fd} --no-control-socket --log-level error {site}:wsgi",
    "asgi": "uvicorn --fd {fd} --log-level error --lifespan off {site}:asgi",
}
USERS = ("ann@corp.example", "bob@corp.example")


@contextmanager
def serving(lake: Any, command: str, **environment: str) -> Iterator[str]:
    """A server of the site in a process of its own, on a socket that listens from now on; its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        arguments = command.format(fd=listening.fileno(), site="tests.lakebase.django_users").split()
        environ = {**os.environ, **lake.environment(), "LAKEBASE_WARM_UP": "0", **environment}
        running = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environ, cwd=ROOT, pass_fds=[listening.fileno()]
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.terminate()
            running.wait(30)


@pytest.fixture(scope="module")
def headers(lakebase_local) -> Callable[[str], dict[str, str]]:
    lakebase_local.add_password_role("djangos", "native")
    tokens = {user: lakebase_local.add_user(user) for user in USERS}
    return lambda user: {"x-forwarded-email": user, "x-forwarded-access-token": tokens[user]}


def ask(url: str, path: str, **options: Any) -> httpx.Response:
    return httpx.get(f"{url}/{path}", timeout=60, **PLAIN, **options)


@pytest.mark.parametrize("server", SERVERS)
def test_two_users_at_once_are_themselves_in_each_kind_of_view(lakebase_local, headers, server) -> None:
    paths = ["plain", "nested", "stream", "in_a_thread"]
    paths += ["astream", "coroutine", "insensitive"] if server == "asgi" else ["coroutine"]
    with (
        serving(lakebase_local, SERVERS[server], MAX_SIZE="10") as url,
        concurrent.futures.ThreadPoolExecutor(6) as pool,
    ):
        asked = [(path, user) for path in paths for _ in range(4) for user in USERS]
        answers = pool.map(lambda one: ask(url, one[0], headers=headers(one[1])).text, asked)
        assert [(*one, answer) for one, answer in zip(asked, answers, strict=True)] == [(*one, one[1]) for one in asked]

        ann, bob = USERS
        assert ask(url, "by_turns", headers=headers(ann)).text == f"{ann} djangos {ann}"
        assert ask(url, "in_anothers_transaction", headers=headers(ann)).text.splitlines() == [
            f"the open transaction is of {ann}, and this query of {bob}",
            f"the open transaction is of {ann}, and this query of the app",
            ann,
        ]
        assert "has ended" in ask(url, "after_the_end", headers=headers(ann)).text
        assert ask(url, "given_back", headers=headers(ann)).text == "True ProgrammingError"

        assert ask(url, "health").text == "well"
        assert [ask(url, path).status_code for path in ("plain", "coroutine")] == [401, 401]
        unproven = {"x-forwarded-email": ann}
        assert ask(url, "plain", headers=unproven).status_code == 401
        anothers = {**headers(ann), "x-forwarded-email": bob}
        assert ask(url, "plain", headers=anothers).status_code == 500, "ann's token is no proof of bob"


def test_what_threads_keep_of_ended_requests_is_taken_from_them(lakebase_local, headers) -> None:
    ann, bob = USERS
    with serving(lakebase_local, SERVERS["asgi"], MAX_SIZE="1") as url:
        for path, user in (
            ("in_a_thread", ann),
            ("insensitive", ann),
            ("plain", ann),
            ("in_a_thread", bob),
            ("plain", ann),
        ):
            assert ask(url, path, headers=headers(user)).text == user


def wrapper(**options: Any) -> Any:
    from lakebase.django.base import DatabaseWrapper

    return DatabaseWrapper({"OPTIONS": options, "TIME_ZONE": None, "NAME": ""}, "default")


def test_an_option_that_cannot_work_is_refused_before_the_first_connection() -> None:
    wrapper(per_user=True, max_total=9, timeout=3.0, schema="shop", sslmode="verify-full", keepalives_idle=30)
    wrapper(pool=True, assume_role="owner", isolation_level=4, server_side_binding=True, options="-c jit=off")
    for options, message in [
        ({"shema": "shop"}, "unknown: did you mean 'schema'"),
        ({"per_users": True}, "unknown: did you mean 'per_user'"),
        ({"nonsense": 1}, "unknown: libpq has no such parameter either"),
        ({"per_user": "yes"}, "expected True or False"),
        ({"max_total": 9}, "set OPTIONS\\['per_user'\\] to True"),
        ({"per_user": True, "pool": True}, "does not go with 'per_user'"),
        ({"per_user": True, "assume_role": "owner"}, "does not go with 'per_user'"),
        ({"per_user": True, "max_size": 0}, "max_size"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            wrapper(**options)
