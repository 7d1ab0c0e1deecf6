"""A Django site whose queries run as the request's user, in every way that Django has for running them."""

from __future__ import annotations

import concurrent.futures
import contextvars
import os
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from lakebase import UserIdentity
from pooling import RequestContext, RequestContextError

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    DATABASES={
        "default": {
            "ENGINE": "lakebase.django",
            "USER": "djangos",  # outside of requests
            "PASSWORD": "native",
            "CONN_MAX_AGE": None,
            "ATOMIC_REQUESTS": True,
            "OPTIONS": {"per_user": True, "max_size": int(os.environ["MAX_SIZE"]), "isolation_level": 2},
        }
    },
    MIDDLEWARE=["pooling.web.django.RequestContextMiddleware"],
    POOLING={"VALUES": "lakebase.request_identity"},
)
wsgi, asgi = get_wsgi_application(), get_asgi_application()

# Its threads are nobody's: they serve one request after another, and Django closes no connection of theirs.
others = concurrent.futures.ThreadPoolExecutor(2)


class Role(models.Model):
    oid = models.IntegerField(primary_key=True)
    rolname = models.TextField()

    class Meta:
        app_label = "pg_catalog"
        db_table = "pg_roles"
        managed = False


class CurrentUser(models.Func):
    template = "current_user"
    output_field = models.TextField()


def me() -> str:
    return Role.objects.get(rolname=CurrentUser()).rolname


def plain(request: Any) -> HttpResponse:
    return HttpResponse(me())


@transaction.non_atomic_requests
def nested(request: Any) -> HttpResponse:
    with transaction.atomic():
        first = me()
        with transaction.atomic():
            second = me()
    return HttpResponse(first if first == second else f"{first} and {second}")


@transaction.non_atomic_requests
def stream(request: Any) -> StreamingHttpResponse:
    user = Role.objects.filter(rolname=CurrentUser()).values_list("rolname", flat=True)
    return StreamingHttpResponse(part for part in (*[""] * 3, *user.iterator()))


@transaction.non_atomic_requests
async def astream(request: Any) -> StreamingHttpResponse:
    async def parts() -> Any:
        async for role in Role.objects.filter(rolname=CurrentUser()):
            yield role.rolname

    return StreamingHttpResponse(parts())


@transaction.non_atomic_requests
async def coroutine(request: Any) -> HttpResponse:
    first = (await Role.objects.aget(rolname=CurrentUser())).rolname
    second = await sync_to_async(me)()
    return HttpResponse(first if first == second else f"{first} and {second}")


@transaction.non_atomic_requests
async def insensitive(request: Any) -> HttpResponse:
    return HttpResponse(await sync_to_async(me, thread_sensitive=False)())


@transaction.non_atomic_requests
def in_a_thread(request: Any) -> HttpResponse:
    return HttpResponse(others.submit(contextvars.copy_context().run, me).result(30))


@transaction.non_atomic_requests
def by_turns(request: Any) -> HttpResponse:
    """The user, the app, and the user."""
    return HttpResponse(" ".join([me(), contextvars.Context().run(me), me()]))


def in_anothers_transaction(request: Any) -> HttpResponse:
    """The request has a transaction, and its code tries to use it as somebody else."""
    refused = []
    me()
    for another in (RequestContext(identity=UserIdentity("bob@corp.example")).active(), contextvars.Context()):
        try:
            if isinstance(another, contextvars.Context):
                another.run(me)
            else:
                with another:
                    me()
        except transaction.TransactionManagementError as error:
            refused.append(str(error).partition(":")[0])
    return HttpResponse("\n".join([*refused, me()]))


@transaction.non_atomic_requests
def after_the_end(request: Any) -> HttpResponse:
    """What code gets that goes on as a request that has ended."""
    with RequestContext("a request", identity=RequestContext.current()["identity"]) as ended:
        me()
    with ended.active():
        try:
            return HttpResponse(me())
        except RequestContextError as error:
            return HttpResponse(str(error))


@transaction.non_atomic_requests
def given_back(request: Any) -> HttpResponse:
    """Whether a connection that was closed by hand, in a transaction or not, is used no more."""
    me()
    driver = connection.connection
    connection.close()
    me()
    is_kept = connection.connection is driver  # the pool lends it again
    with transaction.atomic():
        connection.close()
        try:
            me()
        except Exception as error:
            return HttpResponse(f"{is_kept} {type(error).__name__}")
    return HttpResponse("used")


@transaction.non_atomic_requests
def health(request: Any) -> HttpResponse:
    return HttpResponse("well")


VIEWS = (plain, nested, stream, astream, coroutine, insensitive, in_a_thread, by_turns, in_anothers_transaction)
urlpatterns = [path(view.__name__, view) for view in (*VIEWS, after_the_end, given_back, health)]
