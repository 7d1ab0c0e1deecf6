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
from tests.platform.programs import run
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


def test_a_body_read_as_far_as_was_told_is_whole_and_its_end_is_reached(container):
    log = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        thing = container.thing()
        yield b"one"
        yield b"two"
        log.append(thing.is_out)
        if environ.get("fails"):
            raise LookupError("after its last part")

    served = wsgi.RequestContextMiddleware(app, container)
    body = served({}, lambda *_: None)
    assert [next(body), next(body)] == [b"one", b"two"]
    assert (log, container.factory().ends) == ([True], [None])
    body.close()
    assert list(body) == []

    for closes_at_once in (True, False):
        body = served({"fails": True}, lambda *_: None)
        assert [next(body), next(body)] == [b"one", b"two"]
        if not closes_at_once:
            with pytest.raises(LookupError):
                next(body)
            body.close()
        else:
            with pytest.raises(LookupError):
                body.close()
        assert isinstance(container.factory().ends[-1], LookupError)

    body = served({}, lambda *_: None)
    next(body)
    body.close()
    assert type(container.factory().ends[-1]) is ResponseError
    assert container.things().borrowed == 0


def test_a_body_of_more_than_was_told_is_passed_on_as_it_is(container):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "1")])
        container.thing()
        return iter([b"one", b"two", b"three"])

    assert list(wsgi.RequestContextMiddleware(app, container)({}, lambda *_: None)) == [b"one", b"two", b"three"]
    assert container.factory().ends == [None]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_body_that_no_client_wants_may_be_cut(container, status):
    def app(environ, start_response):
        start_response(status, [])
        container.thing()
        return iter([b"one", b"two"])

    body = wsgi.RequestContextMiddleware(app, container)({}, lambda *_: None)
    next(body)
    body.close()
    assert container.factory().ends == [None]


def test_a_server_can_tell_the_length_of_a_body_of_one_part(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"all"]

    with waitress_server(wsgi.RequestContextMiddleware(app, container)) as url:
        response = get(url)
    assert (response.text, response.headers["content-length"]) == ("all", "3")


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

    @app.get("/redirected")
    @di.inject
    def redirected(repo: Repo = di.Inject[ThreadSite.repo]):
        flask.abort(flask.redirect("/plain"))

    @app.get("/coded")
    @di.inject
    def coded(repo: Repo = di.Inject[ThreadSite.repo]):
        error = KeyError("its code is none of HTTP's")
        error.code = 304
        raise error

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


def test_a_redirect_is_no_error_and_an_error_is_none_by_its_attributes(site, container):
    assert get(site, "/redirected", follow_redirects=False).status_code == 302
    assert get(site, "/coded").status_code == 409
    nothing_is_out(container)
    assert [type(end) for end in container.factory().ends] == [type(None), KeyError]


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
    client = app.test_client()
    for _ in range(6):  # more than there are resources, and nobody reads what was answered
        assert client.get("/").status_code == 200
    with client.get("/") as response:
        assert response.status_code == 200
    assert container.factory().ends == [None] * 8
    assert container.things().borrowed == 0


def test_a_forked_child_does_not_stop_what_its_parent_made(container):
    outcome = run("""
        import os
        import flask
        from pooling import di
        from pooling.web.flask import Pooling

        class Client:
            def close(self):
                print("closed by", "parent" if os.getpid() == parent else "child", flush=True)

        class App(di.Container):
            client = di.Managed(Client, stop="close")
            late = di.Managed(Client, stop="close")

        parent = os.getpid()
        app = App()
        Pooling(flask.Flask("site"), app)
        app.client.start()
        app.start()
        child = os.fork()
        if child == 0:
            raise SystemExit
        os.waitpid(child, 0)
    """)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == ["closed by parent"] * 2
