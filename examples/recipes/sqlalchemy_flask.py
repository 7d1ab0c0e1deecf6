"""Flask with a session of SQLAlchemy for each request, as its user: `waitress-serve sqlalchemy_flask:site`."""

from dependency_injector import providers
from flask import Flask, request
from sqlalchemy import text
from sqlalchemy.orm import Session

from lakebase import LakebasePoolManager, RoutingPool, create_lakebase_pool, request_identity
from lakebase.sqlalchemy import Sessions, create_lakebase_engine
from pooling import di
from pooling.web.flask import Pooling


class App(di.Container):
    users = di.Managed(LakebasePoolManager, max_total=50, stop="close_all")
    app = di.Managed(create_lakebase_pool, max_size=2, stop="close")
    pool = providers.Singleton(RoutingPool, app, users.provided.for_user)
    engine = providers.Singleton(create_lakebase_engine, pool)
    sessions = providers.Singleton(Sessions, engine)
    session: di.Pooled[Session] = di.Pooled(sessions)


site = Flask(__name__)
Pooling(site, App(), values=request_identity)


@site.post("/notes")
@di.inject
def add(session: Session = di.Inject[App.session]) -> tuple[str, int]:
    body = request.args["body"]
    session.execute(text("insert into entries (body) values (:body)"), {"body": body})
    return body, 201


@site.get("/notes")
@di.inject
def notes(session: Session = di.Inject[App.session]) -> list[list[str]]:
    return [list(row) for row in session.execute(text("select body, owner from entries order by id"))]
