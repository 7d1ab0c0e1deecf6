"""FastAPI with a session of SQLAlchemy for each request, as the request's user: `uvicorn sqlalchemy_fastapi:api`."""

from typing import Annotated

from dependency_injector import providers
from fastapi import FastAPI
from sqlalchemy import FetchedValue, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lakebase import AsyncLakebasePoolManager, AsyncRoutingPool, create_async_lakebase_pool, request_identity
from lakebase.sqlalchemy import AsyncSessions, create_async_lakebase_engine
from pooling import di
from pooling.web.fastapi import Injected, install


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str] = mapped_column(server_default=FetchedValue())  # current_user


class App(di.Container):
    users = di.Managed(AsyncLakebasePoolManager, max_total=50, stop="close_all")
    app = di.Managed(create_async_lakebase_pool, max_size=2, stop="close")
    pool = providers.Singleton(AsyncRoutingPool, app, users.provided.for_user)
    engine = providers.Singleton(create_async_lakebase_engine, pool)
    sessions = providers.Singleton(AsyncSessions, engine)
    session: di.Pooled[AsyncSession] = di.Pooled(sessions)


Session = Annotated[AsyncSession, Injected[App.session]]

api = FastAPI()
install(api, App(), values=request_identity)


@api.post("/notes", status_code=201)
async def add(body: str, session: Session) -> str:
    session.add(Note(body=body))  # committed before the 201 goes out; if that fails the answer is a 500
    return body


@api.get("/notes")
async def notes(session: Session) -> list[tuple[str, str]]:
    found = await session.execute(select(Note.body, Note.owner).order_by(Note.id))
    return [(body, owner) for body, owner in found]
