"""The Django middleware, under a WSGI and an ASGI server."""

from __future__ import annotations

import asyncio
import re
import warnings

import httpx
import pytest

from pooling import ConfigurationError, RequestContextError
from pooling.web.asgi import ContainerLifespan
from pooling.web.outcome import ResponseError
from tests.web import django_site
from tests.web.apps import CallSite
from tests.web.servers import PLAIN, Uvicorn, eventually, waitress_server


@pytest.fixture
def wsgi_url():
    from django.core.handlers.wsgi import WSGIHandler

    django_site.configure(django_site.threads)
    django_site.threads.factory().ends.clear()
    with django_site.threads.running(), waitress_server(WSGIHandler()) as url:
        yield url


@pytest.fixture
def asgi_url():
    from django.core.handlers.asgi import ASGIHandler

    django_site.configure(django_site.loop)
    django_site.loop.factory().ends.clear()

    handler = ASGIHandler()

    async def http_only(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await handler(scope, receive, send)

    with Uvicorn(ContainerLifespan(http_only, django_site.loop)) as server:
        yield server.url


def get(url, view):
    return httpx.get(f"{url}/{view}", headers={"x-user": "ann"}, timeout=30, **PLAIN)


@pytest.mark.parametrize(
    ("view", "text"), [("plain", "True ann"), ("stream", "True True\n" * 3), ("untouched", "closed")]
)
def test_a_plain_view_has_its_value_to_the_end_of_its_body(wsgi_url, view, text):
    assert get(wsgi_url, view).text == text
    eventually(lambda: django_site.threads.things().borrowed == 0)
    assert set(ends(django_site.threads)) == {type(None)}


def test_an_error_in_a_plain_view_is_seen_by_the_release_hook(wsgi_url):
    assert get(wsgi_url, "error").status_code == 500
    eventually(lambda: django_site.threads.things().borrowed == 0)
    assert ends(django_site.threads)[-1] is LookupError


def test_a_client_gone_in_the_middle_of_a_plain_stream_gives_back(wsgi_url):
    with httpx.stream("GET", f"{wsgi_url}/endless", timeout=30) as response:
        parts = response.iter_raw()
        next(parts)
    eventually(lambda: django_site.threads.things().borrowed == 0 and ends(django_site.threads)[-1:] == [ResponseError])


@pytest.mark.parametrize(
    ("view", "text"), [("aplain", "True ann"), ("astream", "True True\n" * 3), ("async_view_plain_body", "True")]
)
def test_an_async_view_has_its_value_to_the_end_of_its_body(asgi_url, view, text):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "StreamingHttpResponse must consume")
        assert get(asgi_url, view).text == text
        eventually(lambda: django_site.loop.things().borrowed == 0)
    assert set(ends(django_site.loop)) == {type(None)}


def test_an_error_in_an_async_view_is_seen_by_the_release_hook(asgi_url):
    assert get(asgi_url, "aerror").status_code == 500
    eventually(lambda: django_site.loop.things().borrowed == 0)
    assert ends(django_site.loop)[-1] is LookupError


def test_a_client_gone_in_the_middle_of_an_async_stream_gives_back(asgi_url):
    with httpx.stream("GET", f"{asgi_url}/aendless", timeout=30) as response:
        parts = response.iter_raw()
        next(parts)
        assert django_site.loop.things().borrowed == 1
    eventually(lambda: django_site.loop.things().borrowed == 0)
    assert ends(django_site.loop)[-1] in (asyncio.CancelledError, ResponseError)


@pytest.mark.parametrize(("side", "view"), [("wsgi", "known"), ("asgi", "aknown")])
def test_a_streamed_response_that_a_middleware_replaces_gives_back(request, side, view):
    url = request.getfixturevalue(f"{side}_url")
    container = django_site.threads if side == "wsgi" else django_site.loop
    headers = {"if-modified-since": django_site.LONG_AGO}
    for _ in range(6):  # more than there are resources
        assert httpx.get(f"{url}/{view}", headers=headers, timeout=30).status_code == 304
    eventually(lambda: container.things().borrowed == 0)
    assert ends(container) == [type(None)] * 6
    assert httpx.get(f"{url}/{view}", timeout=30).text == "known"


@pytest.mark.parametrize(("side", "view"), [("wsgi", "known"), ("asgi", "aknown")])
def test_a_head_of_a_streamed_response_is_no_error(request, side, view):
    url = request.getfixturevalue(f"{side}_url")
    container = django_site.threads if side == "wsgi" else django_site.loop
    with httpx.Client() as client:
        assert client.head(f"{url}/{view}", timeout=30).status_code == 200
    eventually(lambda: container.things().borrowed == 0)
    assert ends(container) == [type(None)]


def ends(container):
    return [type(end) for end in container.factory().ends]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"container": None}, "did you mean CONTAINER"),
        ({"CONTAINERS": None}, "did you mean CONTAINER"),
        ({"TIMEOUT": 3}, "the keys of this setting are CONTAINER, VALUES, RELEASE"),
        ({"CONTAINER": type(django_site.loop)}, "expected a container"),
        ({"CONTAINER": type(django_site.threads)}, "expected a container"),
        ({"RELEASE": "late"}, "'handler', 'response' or 'end'"),
    ],
)
def test_a_setting_that_cannot_work_is_told_at_construction(given, says):
    from pooling.web.django import RequestContextMiddleware

    django_site.configure(None)
    from django.conf import settings

    settings.POOLING = given
    with pytest.raises(ConfigurationError, match=says):
        RequestContextMiddleware(lambda request: None)


def test_a_value_of_an_asyncio_pool_under_wsgi_says_what_to_do(caplog):
    site = CallSite()
    django_site.configure(site)
    from django.core.handlers.wsgi import WSGIHandler

    with waitress_server(WSGIHandler()) as url:
        for _ in range(2):
            assert get(url, "aplain").status_code == 500
    errors = [record.exc_info[1] for record in caplog.records if record.name == "django.request"]
    assert [type(error) for error in errors] == [RequestContextError] * 2
    assert "serve the site with ASGI, or use plain views" in str(errors[0])
    asyncio.run(site.things().stop())
    assert site.things().size == 0


def test_a_file_is_sent_by_the_server_itself(wsgi_url):
    assert get(wsgi_url, "file").text == "a file"
    eventually(lambda: django_site.threads.things().borrowed == 0)
    assert ends(django_site.threads) == [type(None)]


@pytest.mark.parametrize("server", ["wsgi_url", "asgi_url"])
def test_the_live_page_is_a_view(server, request):
    url = request.getfixturevalue(server)
    assert httpx.get(f"{url}/pools/pools.json").status_code == 403
    with httpx.Client(base_url=f"{url}/pools", headers={"x-operator": "yes"}, follow_redirects=True) as client:
        page = client.get("")
        assert page.url.path == "/pools/"
        assert "<title>Pools</title>" in page.text
        assert client.get("pools.json").json()["version"] == 1
        assert client.get("events").text.startswith("retry: ")
        assert "There is nothing" in client.get("nothing").json()["error"]
        token = re.search('name="csrf" content="([^"]+)"', page.text)[1]
        body = {"action": "expire", "pool": "nope", "process": client.get("pools.json").json()["process"]["id"]}
        headers = {"x-csrf-token": token}
        assert client.post("action", json=body, headers=headers).status_code == 404, "its own token is what counts"
        assert client.post("action", json=body).status_code == 403
        assert client.post("action", json={**body, "pool": "x" * 20_000}, headers=headers).status_code == 413
