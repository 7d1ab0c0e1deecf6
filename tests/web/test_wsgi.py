"""The WSGI middleware and the Flask extension under a real server."""

from __future__ import annotations

import http.client
import threading

import flask
import httpx
import pytest

from pooling import RequestContext, di
from pooling.web import wsgi
from pooling.web.flask import Pooling
from pooling.web.outcome import ResponseError
from tests.web.apps import Repo, ThreadSite
from tests.web.servers import eventually, waitress_server


@pytest.fixture
def container():
    with ThreadSite().running() as container:
        yield container


def get(url, path="/", **options):
    return httpx.get(url + path, timeout=30, **options)


def nothing_is_out(container):
    eventually(lambda: container.things().borrowed == 0)


# --- any WSGI app ----------------------------------------------------------------------------------------------------


def test_a_streamed_body_keeps_its_value_until_the_server_closes_it(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        thing = container.thing()

        def body():
            for _ in range(3):
                assert container.thing() is thing  # the request is current while a part is made
                yield f"{thing.is_out} {RequestContext.current()['path']}\n".encode()

        return body()

    served = wsgi.RequestContextMiddleware(app, container, values=lambda environ: {"path": environ["PATH_INFO"]})
    with waitress_server(served) as url:
        assert get(url, "/x").text == "True /x\n" * 3
        nothing_is_out(container)
        assert container.factory().ends == [None]


def test_between_the_parts_no_request_is_current(container):
    def app(environ, start_response):
        yield b"one"
        assert RequestContext.current() is not None
        yield b"two"

    body = wsgi.RequestContextMiddleware(app, container)({}, None)
    parts = iter(body)
    assert next(parts) == b"one"
    assert RequestContext.current() is None
    assert next(parts) == b"two"
    body.close()


def test_two_bodies_by_turns_in_one_thread_keep_their_own_values(container):
    def app(environ, start_response):
        thing = container.thing()
        for _ in range(2):
            assert container.thing() is thing
            yield str(id(thing)).encode()

    served = wsgi.RequestContextMiddleware(app, container)
    one, two = served({}, None), served({}, None)
    first = (next(one), next(two), next(one), next(two))
    assert first[0] == first[2] != first[1] == first[3]
    one.close()
    two.close()
    nothing_is_out(container)


def test_parts_made_in_several_threads_have_the_same_value(container):
    def app(environ, start_response):
        while True:
            yield container.thing()

    body = wsgi.RequestContextMiddleware(app, container)({}, None)
    seen = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append(next(body)))
        thread.start()
        thread.join(20)
    body.close()
    assert len(set(seen)) == 1
    nothing_is_out(container)


def test_an_app_that_raises_gives_back_and_tells_the_release_hook(container):
    def app(environ, start_response):
        container.thing()
        raise LookupError("in the app")

    with pytest.raises(LookupError):
        wsgi.RequestContextMiddleware(app, container)({}, None)
    assert [type(end) for end in container.factory().ends] == [LookupError]


def test_a_body_that_raises_gives_back_and_tells_the_release_hook(container):
    def app(environ, start_response):
        container.thing()
        yield b"one"
        raise LookupError("in the body")

    body = wsgi.RequestContextMiddleware(app, container)({}, None)
    with pytest.raises(LookupError):
        list(body)
    body.close()
    assert [type(end) for end in container.factory().ends] == [LookupError]


def test_the_bodys_own_close_runs_first_and_its_error_gives_back_all_the_same(container):
    class Body:
        def __iter__(self):
            return iter([b"x"])

        def close(self):
            assert container.thing().is_out
            raise OSError("close")

    body = wsgi.RequestContextMiddleware(lambda environ, start: Body(), container)({}, None)
    assert next(body) == b"x"
    with pytest.raises(OSError, match="close"):
        body.close()
    body.close()
    assert container.things().borrowed == 0


def test_a_client_gone_in_the_middle_of_a_stream_gives_back(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        container.thing()
        while True:
            yield b"x" * 65536

    with waitress_server(wsgi.RequestContextMiddleware(app, container)) as url:
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read(10)
        response.close()
        connection.close()
        nothing_is_out(container)
        assert [type(end) for end in container.factory().ends] == [ResponseError]


def streams(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        container.thing()
        return iter([b"one", b"two"])

    return wsgi.RequestContextMiddleware(app, container)


def test_a_body_closed_after_its_first_part_ends_with_an_error_and_one_read_to_the_end_without(container):
    served = streams(container)
    for read in (1, 2):
        body = served({}, lambda *_: None)
        assert [next(body) for _ in range(read)] == [b"one", b"two"][:read]
        body.close()
    assert list(served({}, lambda *_: None)) == [b"one", b"two"]
    cut, unfinished, whole = container.factory().ends
    assert type(cut) is type(unfinished) is ResponseError, "its second part may not have been its last"
    assert "not sent to its end" in str(cut)
    assert whole is None


def test_a_body_nobody_asks_for_is_no_error_nor_is_that_of_a_head(container):
    served = streams(container)
    served({}, lambda *_: None).close()
    body = served({"REQUEST_METHOD": "HEAD"}, lambda *_: None)
    next(body)
    body.close()
    assert container.factory().ends == [None, None]


def test_many_requests_at_once_each_have_their_own_value(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        thing = container.thing()
        yield str(thing.is_out and container.thing() is thing).encode()

    results = []
    with waitress_server(wsgi.RequestContextMiddleware(app, container)) as url:
        threads = [threading.Thread(target=lambda: results.append(get(url).text)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        nothing_is_out(container)
    assert results == ["True"] * 12


# --- Flask -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(container):
    app = flask.Flask("site")
    Pooling(app, container, values=lambda environ: {"user": environ.get("HTTP_X_USER")})

    @app.get("/plain")
    @di.inject
    def plain(repo: Repo = di.Inject[ThreadSite.repo]):
        same = container.thing() is repo.thing
        return f"{same} {repo.thing.is_out} {RequestContext.current()['user']}"

    @app.get("/<int:number>")
    @di.inject
    def with_argument(number, repo: Repo = di.Inject[ThreadSite.repo]):
        return f"{number} {repo.thing.is_out}"

    @app.get("/stream")
    @di.inject
    def stream(repo: Repo = di.Inject[ThreadSite.repo]):
        return flask.Response(f"{repo.thing.is_out}\n" for _ in range(3))

    @app.get("/stream-with-context")
    @di.inject
    def stream_with_context(repo: Repo = di.Inject[ThreadSite.repo]):
        def body():
            for _ in range(3):
                yield f"{repo.thing.is_out} {flask.request.path}\n"

        return flask.Response(flask.stream_with_context(body()))

    @app.get("/error")
    @di.inject
    def error(repo: Repo = di.Inject[ThreadSite.repo]):
        raise LookupError("in the view")

    @app.get("/missing")
    @di.inject
    def missing(repo: Repo = di.Inject[ThreadSite.repo]):
        flask.abort(404)

    @app.get("/answered")
    @di.inject
    def answered(repo: Repo = di.Inject[ThreadSite.repo]):
        raise KeyError("in the view")

    @app.errorhandler(KeyError)
    def conflict(error):
        return "conflict", 409

    @app.get("/status/<int:status>")
    @di.inject
    def answer(status: int, repo: Repo = di.Inject[ThreadSite.repo]):
        return "", status

    with waitress_server(app) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/plain", "True True ann"),
        ("/7", "7 True"),
        ("/stream", "True\n" * 3),
        ("/stream-with-context", "True /stream-with-context\n" * 3),
    ],
)
def test_a_flask_view_has_its_value_to_the_end_of_its_body(site, container, path, text):
    assert get(site, path, headers={"x-user": "ann"}).text == text
    nothing_is_out(container)
    assert container.factory().ends == [None]


def test_an_error_in_a_flask_view_is_seen_by_the_release_hook(site, container):
    assert get(site, "/error").status_code == 500
    assert get(site, "/missing").status_code == 404
    assert get(site, "/answered").status_code == 409
    assert get(site, "/status/503").status_code == 503
    nothing_is_out(container)
    ends = container.factory().ends
    assert [type(end).__name__ for end in ends] == ["LookupError", "NotFound", "KeyError", "ResponseError"]
    assert str(ends[-1]) == "request 'GET /status/503' was answered with status 503"


@pytest.mark.parametrize("status", [200, 302, 404])
def test_an_answer_of_less_than_500_is_no_error(site, container, status):
    assert get(site, f"/status/{status}").status_code == status
    nothing_is_out(container)
    assert container.factory().ends == [None]


def test_values_may_have_any_name():
    def app(environ, start_response):
        ctx = RequestContext.current()
        assert (ctx["name"], ctx["parent"]) == ("ann", "bob")
        start_response("200 OK", [])
        return []

    wrapped = wsgi.RequestContextMiddleware(app, values=lambda environ: {"name": "ann", "parent": "bob"})
    body = wrapped({"REQUEST_METHOD": "GET"}, lambda status, headers: None)
    assert list(body) == []


def test_the_extension_can_be_given_its_app_later_and_serves_flasks_test_client(container):
    app, extension = flask.Flask("later"), Pooling(container=container)
    extension.init_app(app)
    app.get("/")(lambda: str(container.thing().is_out))
    assert app.extensions["pooling"] is extension
    with app.test_client() as client:
        assert client.get("/").text == "True"
    nothing_is_out(container)
