"""Users' pools for threads under gevent, with greenlets in place of threads: `gunicorn -k gevent gevent_site:site`."""

from typing import Annotated, Any

from flask import Flask
from psycopg import Connection

from lakebase import LakebasePoolManager, request_identity
from pooling import RequestContext, di
from pooling.web.flask import Pooling


def pool_of_user(users: LakebasePoolManager[Connection[Any]], ctx: RequestContext) -> Any:
    return users.for_user(ctx["identity"])


class App(di.Container):
    users = di.Managed(LakebasePoolManager, max_total=20, stop="close_all")
    connection: di.Pooled[Connection[Any]] = di.Pooled(users, select=pool_of_user)


User = Annotated[Connection[Any], di.Inject(App.connection)]

site = Flask(__name__)
Pooling(site, App(), values=request_identity)


@site.get("/who")
@di.inject
def who(connection: User) -> str:
    row = connection.execute("select current_user").fetchone()
    return str(row[0]) if row else ""


@site.get("/patient")
@di.inject
def patient(connection: User) -> str:
    connection.execute("select pg_advisory_xact_lock(7)")  # other greenlets run while this one waits for the server
    return "locked"


@site.get("/health")
def health() -> str:
    return "well"
