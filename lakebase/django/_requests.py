"""
The connections of requests: each is logged in as the request's user, and lent by that user's pool.

Django keeps a connection for each thread, and a thread serves one user after another. So each use of the connection
compares its user with that of the current request. At the request's end Django itself closes the connections of the
threads that it knows, which gives them back. What other threads hold of ended requests (of `sync_to_async` with
`thread_sensitive=False`, say) is closed when a request has waited for a second.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from psycopg_pool import PoolClosed, PoolTimeout

from pooling import RequestContext, RequestContextError

from .._driver_state import drop_socket
from ..errors import IdentityError
from ..identity import UserIdentity

if TYPE_CHECKING:
    from ..manager import LakebasePoolManager

__all__ = ["Lent", "RequestConnections", "current_request"]

_SOON = 1.0


def current_request() -> tuple[RequestContext, UserIdentity] | None:
    """
    The current request and its user; `None` outside of requests.

    Raises:
        IdentityError: The request has no user.
        RequestContextError: The request has ended, and this code outlives it.
    """
    ctx = RequestContext.current()
    if ctx is None:
        return None
    if ctx.is_closed:
        raise RequestContextError(
            f"{ctx} has ended, so its user's connections are given back: run what outlives a request outside of it"
        )
    identity = ctx.get("identity")
    if identity is None:
        raise IdentityError(
            f"{ctx} has no identity, and its queries are not run with the app's role instead. Set "
            "POOLING = {'VALUES': 'lakebase.request_identity'}; work that belongs to no user has a database of its own "
            "in DATABASES, without 'per_user'."
        )
    return ctx, UserIdentity.checked(identity)


class Lent:
    """
    One connection of a user's pool, lent to one thread for one request.

    It is out as long as it is among those that are; removing it from there is the right to give it back.
    """

    __slots__ = ("_all", "_ctx", "_pool", "_thread", "connection", "identity")

    def __init__(self, out: set[Lent], pool: Any, connection: Any, ctx: RequestContext, identity: UserIdentity) -> None:
        self._all = out
        self._pool = pool
        self._ctx = ctx
        self._thread = threading.get_ident()
        self.connection = connection
        self.identity = identity
        out.add(self)

    def is_for(self, request: tuple[RequestContext, UserIdentity] | None) -> bool:
        """Whether a request may use it."""
        return request is not None and request[1] == self.identity and not self._ctx.is_closed and self in self._all

    @property
    def is_left(self) -> bool:
        """Whether its request has ended, and another thread than this one still has it."""
        return self._ctx.is_closed and self._thread != threading.get_ident()

    def give_back(self) -> None:
        """Give it back to its pool, rolled back if its transaction is open. Once; later calls do nothing."""
        if self._is_mine_to_return():
            self._pool.putconn(self.connection)

    def take_away(self) -> None:
        """
        Close it, unless its thread is in the middle of an operation. Called in another thread.

        No borrower gets it afterwards: the thread may still have it in its hands.
        """
        lock = self.connection.lock
        if not lock.acquire(blocking=False):
            return
        try:
            if not self._is_mine_to_return():
                return
            drop_socket(self.connection)
        finally:
            lock.release()
        self._pool.putconn(self.connection)

    def _is_mine_to_return(self) -> bool:
        try:
            self._all.remove(self)
        except KeyError:
            return False
        return True


class RequestConnections:
    """The users' pools of one database, and what they have lent."""

    def __init__(self, manager: LakebasePoolManager[Any]) -> None:
        self.manager = manager
        self._out: set[Lent] = set()

    def lend(self, ctx: RequestContext, identity: UserIdentity) -> Lent:
        """
        A connection of this user. Blocks for at most the pool's `timeout`, and a second.

        Raises:
            IdentityError: The identity proves nothing.
            PoolTimeout: The user's connections are all in use.
            Error: The login failed.
        """
        while True:
            pool = self.manager.for_user(identity)
            try:
                return Lent(self._out, pool, self._connection_of(pool), ctx, identity)
            except PoolClosed:  # the user has another session now, or this one has just aged out
                if self.manager.for_user(identity) is pool:
                    raise

    def _connection_of(self, pool: Any) -> Any:
        left = [lent for lent in self._out.copy() if lent.is_left]
        if not left or pool.timeout <= _SOON:
            return pool.getconn()
        try:
            return pool.getconn(_SOON)
        except PoolTimeout:
            for lent in left:
                lent.take_away()
            return pool.getconn()

    def close(self) -> None:
        """Close all pools. What is out is closed as it comes back."""
        self.manager.close_all(timeout=0.0)
