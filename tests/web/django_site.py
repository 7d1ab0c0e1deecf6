"""A Django site with plain and async views."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import django
from django.conf import settings
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from pooling import RequestContext, di
from pooling.web.django import Dashboard
from tests.web import truth_sites
from tests.web.apps import CallSite, Repo, ThreadSite

threads = ThreadSite()
loop = CallSite()


gate: Any = None


def configure(container, **pooling) -> None:
    """Serve the requests from this container; Django has one set of settings per process."""
    given = {"CONTAINER": container, "VALUES": lambda request: {"user": request.headers.get("x-user")}, **pooling}
    if not settings.configured:
        settings.configure(
            DEBUG=False,
            SECRET_KEY="x" * 50,
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=__name__,
            LOGGING_CONFIG=None,
            MIDDLEWARE=[
                "django.middleware.http.ConditionalGetMiddleware",  # may replace a view's response by another one
                "pooling.web.django.RequestContextMiddleware",
                "django.middleware.common.CommonMiddleware",
            ],
            POOLING=given,
        )
        django.setup()
    settings.POOLING = given


@di.inject
def plain(request, repo: Repo = di.Inject[ThreadSite.repo]):
    return HttpResponse(f"{repo.thing.is_out} {RequestContext.current()['user']}")


@di.inject
def stream(request, repo: Repo = di.Inject[ThreadSite.repo]):
    return StreamingHttpResponse(f"{repo.thing.is_out} {threads.thing() is repo.thing}\n" for _ in range(3))


@di.inject
def endless(request, repo: Repo = di.Inject[ThreadSite.repo]):
    def body():
        while True:
            yield b"x" * 65536

    return StreamingHttpResponse(body())


@di.inject
def untouched(request, repo: Repo = di.Inject[ThreadSite.repo]):
    response = StreamingHttpResponse(iter([b"never sent"]))
    response.close()
    return HttpResponse(b"closed")


@di.inject
def error(request, repo: Repo = di.Inject[ThreadSite.repo]):
    raise LookupError("in the view")


@di.inject
async def aplain(request, repo: Repo = di.Inject[CallSite.repo]):
    return HttpResponse(f"{repo.thing.is_out} {RequestContext.current()['user']}")


@di.inject
async def astream(request, repo: Repo = di.Inject[CallSite.repo]):
    async def body():
        for _ in range(3):
            await asyncio.sleep(0)
            yield f"{repo.thing.is_out} {loop.thing() is repo.thing}\n"

    return StreamingHttpResponse(body())


@di.inject
async def aendless(request, repo: Repo = di.Inject[CallSite.repo]):
    async def body():
        while True:
            await asyncio.sleep(0)
            yield b"x" * 65536

    return StreamingHttpResponse(body())


@di.inject
async def async_view_plain_body(request, repo: Repo = di.Inject[CallSite.repo]):
    return StreamingHttpResponse(iter([f"{repo.thing.is_out}"]))


LONG_AGO = "Thu, 01 Jan 2015 00:00:00 GMT"


@di.inject
def known(request, repo: Repo = di.Inject[ThreadSite.repo]):
    return StreamingHttpResponse(iter([b"known"]), headers={"Last-Modified": LONG_AGO})


@di.inject
async def aknown(request, repo: Repo = di.Inject[CallSite.repo]):
    async def body():
        yield b"known"
        await asyncio.sleep(0)
        if request.method == "HEAD":
            await asyncio.Event().wait()  # until the client has gone, which wants no body

    return StreamingHttpResponse(body(), headers={"Last-Modified": LONG_AGO})


@di.inject
async def aerror(request, repo: Repo = di.Inject[CallSite.repo]):
    raise LookupError("in the view")


@di.inject
def file(request, repo: Repo = di.Inject[ThreadSite.repo]):
    return FileResponse(io.BytesIO(b"a file"))


@di.inject
def act(request, what, status, n, connection=di.Inject[truth_sites.ThreadSite.connection]):
    truth_sites.act_in_thread(connection, what, n)
    return StreamingHttpResponse(truth_sites.parts(gate), status=status)


@di.inject
async def aact(request, what, status, n, connection=di.Inject[truth_sites.Site.connection]):
    await truth_sites.act(connection, what, n)
    return StreamingHttpResponse(truth_sites.aparts(gate), status=status)


def health(request):
    return HttpResponse("well")


asked: Any = None  # what answers the next two


def who(request):
    return HttpResponse(asked(settings.POOLING["CONTAINER"]))


async def awho(request):
    return HttpResponse(await asked(settings.POOLING["CONTAINER"]))


PLAIN = (health, who, file, plain, stream, endless, untouched, error, known)
ASYNC = (awho, aplain, astream, aendless, async_view_plain_body, aerror, aknown)

dashboard = Dashboard(lambda request: request.headers.get("x-operator") == "yes", allow_actions=True)

urlpatterns = [re_path(r"^pools(?P<path>/.*)?$", dashboard)]
urlpatterns += [path(view.__name__, view) for view in PLAIN + ASYNC]
urlpatterns += [path("<what>/<int:status>/<int:n>", act), path("async/<what>/<int:status>/<int:n>", aact)]
