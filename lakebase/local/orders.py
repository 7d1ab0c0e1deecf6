"""Orders to a local Lakebase that runs from a command line: the process that runs it takes them, over loopback."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import TYPE_CHECKING, Any, Self

import psycopg

from .environments import check_client
from .errors import LocalLakebaseError
from .http_server import HttpServer, Request, Response
from .loop_thread import LoopThread

if TYPE_CHECKING:
    from types import TracebackType

    from .lake import LocalLakebase

__all__ = ["OrderServer"]

_HOST = "127.0.0.1"


class OrderServer:
    """
    Takes orders in its own thread while it is entered.

    Args:
        lake: The running local Lakebase that carries them out.

    Attributes:
        address: Where it listens.
        token: What an order must carry.
    """

    def __init__(self, lake: LocalLakebase) -> None:
        self._lake = lake
        self.token: str = secrets.token_urlsafe(24)
        self.address: str = ""
        self._loop = LoopThread("local-lakebase-orders")
        self._server = HttpServer(self._answer)

    def __enter__(self) -> Self:
        self._loop.start()
        self.address = f"http://{_HOST}:{self._loop.run(self._server.open(_HOST, 0))}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._server.close())
        self._loop.stop()

    async def _answer(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return Response(403, {"message": "not allowed"})
        orders = {
            "/status": self._status,
            "/token": self._token,
            "/password": self._password,
            "/environment": self._environment,
            "/suspend": self._suspend,
            "/resume": self._resume,
        }
        if request.path not in orders:
            return Response(404, {"message": "no such order"})
        if request.method != "POST":
            return Response(405, {"message": "an order is a POST"})
        try:
            # In another thread, since the lake's methods block until its own loop has done the work.
            return Response(200, await asyncio.to_thread(orders[request.path], request.json()))
        except (LocalLakebaseError, ValueError, OSError, psycopg.Error) as error:
            return Response(400, {"message": str(error)})

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        stats = self._lake.stats()
        users = {name: [user.open, user.total, user.minted] for name, user in stats.users.items() if user.total}
        return {
            "state": self._lake.state,
            "open": stats.open,
            "total": stats.total,
            "minted": stats.minted,
            "users": users,
        }

    def _token(self, body: dict[str, Any]) -> dict[str, Any]:
        scopes = body.get("scopes")
        if scopes is None:
            return {"token": self._lake.add_user(_user(body))}
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ValueError(f"scopes={scopes!r}: expected a list of names")
        return {"token": self._lake.forwarded_token(_user(body), scopes)}

    def _password(self, body: dict[str, Any]) -> dict[str, Any]:
        user = _user(body)
        self._ensure(user)
        return {"password": self._lake.mint(user)}

    def _environment(self, body: dict[str, Any]) -> dict[str, Any]:
        user = None if body.get("user") is None else _user(body)
        check_client(body.get("client"))
        if user is not None:
            self._ensure(user)
        return {"variables": self._lake.environment(body["client"], user)}

    def _ensure(self, user: str) -> None:
        try:
            self._lake.token(user)
        except LocalLakebaseError:
            self._lake.add_user(user)

    def _suspend(self, body: dict[str, Any]) -> dict[str, Any]:
        self._lake.suspend(body.get("wake_after", 0.3))
        return {"state": self._lake.state}

    def _resume(self, _: dict[str, Any]) -> dict[str, Any]:
        self._lake.resume()
        return {"state": self._lake.state}


def _user(body: dict[str, Any]) -> str:
    user = body.get("user")
    if not isinstance(user, str):
        raise ValueError(f"user={user!r}: expected the name of a user")  # noqa: TRY004
    return user
