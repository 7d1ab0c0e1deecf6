"""Flask: the extension."""

from __future__ import annotations

import flask
import pytest

from pooling import PoolFactory, RequestContext, di
from pooling.web.flask import Pooling
from tests.platform.programs import run
from tests.web.apps import Repo, ThreadSite
from tests.web.servers import get, nothing_is_out, waitress_server


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


def test_the_extension_can_be_given_its_app_later_and_serves_flasks_test_client(container):
    app, extension = flask.Flask("later"), Pooling(container=container)
    extension.init_app(app)
    app.get("/")(lambda: str(container.thing().is_out))
    assert app.extensions["pooling"] is extension
    with app.test_client() as client:
        assert client.get("/").text == "True"
    client = app.test_client()
    for _ in range(6):  # more than there are resources, and the responses are not read
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


@pytest.mark.parametrize("release", ["handler", "response", "end"])
def test_after_an_error_no_value_is_made_durable_before_the_answer(release):
    kept = []

    class Site(di.Container):
        things = di.Pool(PoolFactory.of(object, checkpoint=kept.append))
        thing = di.Pooled(things)

    app = flask.Flask("site")
    with Site().running() as container:
        Pooling(app, container, release=release)

        @app.get("/<int:status>")
        def answer(status):
            container.thing()
            return "done" if status == 200 else flask.abort(status)

        client = app.test_client()
        for status in (409, 500):
            assert client.get(f"/{status}").status_code == status
        assert kept == []
        assert client.get("/200").status_code == 200
        assert len(kept) == 1, "once for each answer"
