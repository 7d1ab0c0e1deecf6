"""An answer tells the truth: real servers, real frameworks, a real Postgres."""

from __future__ import annotations

import httpx
import pytest

from tests.web.servers import PLAIN, eventually
from tests.web.truth_sites import ASGI, WITH_HANDLERS, WSGI, served

pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")

in_each = pytest.mark.parametrize("make", ASGI + WSGI, ids=lambda make: make.__name__)


def post(url, what, status, n):
    return httpx.post(f"{url}/{what}/{status}/{n}", timeout=30, **PLAIN)


def nothing_is_out(site):
    eventually(lambda: site.pool().service.borrowed == 0)


@in_each
@pytest.mark.parametrize("release", ["end", "handler"])
def test_what_an_answer_tells_is_committed_before_its_first_byte(make, release, config, database, gate, n):
    with served(make, config, gate, release) as (url, site):
        with httpx.stream("POST", f"{url}/add/201/{n}", timeout=30) as response:
            body = response.iter_raw()
            assert (response.status_code, next(body)) == (201, b"one")
            assert database.has(n)
            assert database.transactions() == [], "a stream holds no transaction of its handler"
            assert site.pool().service.borrowed == (release == "end")
            gate.event.set()
            assert b"".join(body) == b"two"
        nothing_is_out(site)


@in_each
def test_an_answer_whose_commit_fails_is_an_error(make, config, database, gate, n):
    gate.event.set()
    with served(make, config, gate) as (url, site):
        answer = post(url, "orphan", 201, n)
        if make in WITH_HANDLERS:
            assert (answer.status_code, answer.json()) == (422, {"answered": "ForeignKeyViolation"})
        else:
            assert answer.status_code == 500
        nothing_is_out(site)
        assert database.transactions() == []
        assert post(url, "add", 201, n).status_code == 201, "the next request is served"
        assert database.has(n)
        nothing_is_out(site)


@in_each
def test_a_failed_statement_that_the_handler_hides_is_no_success(make, config, database, gate, n):
    gate.event.set()
    with served(make, config, gate) as (url, site):
        assert post(url, "swallowed", 201, n).status_code == 500
        assert not database.has(n)
        assert post(url, "swallowed", 409, n).status_code == 409, "what promises nothing goes out"
        assert not database.has(n)
        nothing_is_out(site)


@in_each
def test_an_answer_of_500_commits_nothing_and_one_of_400_does(make, config, database, gate, n):
    gate.event.set()
    with served(make, config, gate) as (url, site):
        assert post(url, "add", 503, n).status_code == 503
        nothing_is_out(site)
        assert not database.has(n)
        assert post(url, "add", 404, n).status_code == 404
        assert database.has(n)
        nothing_is_out(site)
