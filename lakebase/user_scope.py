"""
One pool of the app's role, whose transactions act for the request's user.

The other way to per-user data: instead of a connection of the user's role, a transaction that names its user in a
setting, which row-level security reads. The setting is local to the transaction (`set_config(…, true)`), so the next
user of the connection does not see it; that also holds through a pooler in transaction mode.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from psycopg import NotSupportedError, Rollback
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from psycopg_pool.abc import ACT, CT

from pooling import RequestContext

from ._acting import acting_for, role_refusal
from ._checkpoint import has_to_commit
from ._delegating import Delegating
from ._driver_state import sealing
from ._session_reset import SessionReset, check_session_reset, ending_block, take_mark
from ._steps import arun, run
from .errors import ConfigurationError, IdentityError
from .identity import UserIdentity

if TYPE_CHECKING:
    from ._steps import Steps

__pooling_internal__ = True

__all__ = ["AsyncUserScopedPool", "UserScopedPool"]

P = TypeVar("P", bound="ConnectionPool[Any] | AsyncConnectionPool[Any]")

_USER = "lakebase_user"  # of the connection: for whom its present block acts


class _UserScope(Delegating[P]):
    def __init__(
        self,
        pool: P,
        *,
        setting: str | None = "app.user",
        as_role: bool = False,
        session_reset: SessionReset | None = "discard",
    ) -> None:
        if setting is None and not as_role:
            raise ConfigurationError(
                "setting=None with as_role=False: the database would not know which user the transaction is for",
                field="setting",
            )
        if setting is not None and "." not in setting:
            raise ConfigurationError(
                f"setting={setting!r}: expected a name with a dot in it, as 'app.user': Postgres keeps the others",
                field="setting",
            )
        check_session_reset(session_reset)
        self.pool = pool
        self.setting = setting
        self.as_role = as_role
        self.session_reset = session_reset

    @property
    def _pool_behind(self) -> P:  # type: ignore[override] # theirs can be set
        return self.pool

    def _user(self, identity: UserIdentity | None) -> str:
        """The user for whom a transaction is to act."""
        if identity is None:
            context = RequestContext.current()
            identity = None if context is None else context.get("identity")
        if not isinstance(identity, UserIdentity):
            raise IdentityError(
                "the transaction has no user: there is no request with an identity (a UserIdentity) here. Open one, "
                "give identity=, or use the app's own pool for work that belongs to no user."
            )
        return identity.pool_key()

    def _beginning(self, connection: Any, user: str) -> Steps[bool]:
        """Begin the user's transaction, which only its block can end; whether the connection was in autocommit."""
        was_autocommit: bool = connection.autocommit
        if was_autocommit:
            yield partial(connection.set_autocommit, False)
        try:
            yield from acting_for(connection, user, setting=self.setting, as_role=self.as_role)
        except Exception as error:
            if connection.closed:
                raise
            yield connection.rollback
            refusal = (yield from role_refusal(connection, user, error)) if self.as_role else None
            yield connection.rollback
            yield partial(connection.set_autocommit, was_autocommit)
            if refusal is None:
                raise
            raise refusal from error
        setattr(connection, _USER, user)
        sealing(connection, +1)
        return was_autocommit

    def _continuing(self, connection: Any) -> Steps[None]:
        """Commit the user's transaction, and begin the next one of the same user: no statement runs without one."""
        if not has_to_commit(connection):
            return
        try:
            yield partial(connection.execute, "COMMIT")  # not `commit()`, which the driver refuses inside the block
            user = connection.__dict__[_USER]
            yield from acting_for(connection, user, setting=self.setting, as_role=self.as_role)
        except BaseException:
            connection.pgconn.finish()  # what its borrower does next would be done as the app
            raise

    def _ending(self, connection: Any, error: BaseException | None, *, was_autocommit: bool) -> Steps[bool]:
        """
        End the user's transaction, and clear what it leaves in the session; whether `error` only meant a rollback.

        The next borrower acts for another user, or for none, on the same session.
        """
        sealing(connection, -1)
        clears = self.session_reset is not None and getattr(self.pool, "session_reset", None) is None
        yield from ending_block(connection, error, clears=clears)
        if not connection.closed:
            configure = getattr(self.pool, "_configure", None)  # the name is psycopg_pool's
            if take_mark(connection) and configure is not None:
                yield partial(configure, connection)
            yield partial(connection.set_autocommit, was_autocommit)
        return isinstance(error, Rollback) and error.transaction is None

    def _refuse_loan(self) -> NoReturn:
        raise NotSupportedError(
            f"{type(self).__name__} has no getconn(): the transaction is the user's, and only a block can end it. "
            "Use connection()"
        )


class UserScopedPool(_UserScope[ConnectionPool[CT]], ConnectionPool[CT]):
    """
    A `psycopg_pool.ConnectionPool`; each connection is in a transaction of the request's user.

    A policy reads the user: `USING (owner = current_setting('app.user', true))`.
    Outside of such a transaction that is null or empty, and no row is seen.
    The transaction is the block: it is committed at its end, rolled back if the block raises, and neither may be done
    inside, since what follows would have no user. What the block leaves in the session, such as a setting, a role or a
    temporary table, is cleared in the round trip that ends the transaction, before another user can see it.

    A user who can run arbitrary SQL in it can also set the setting. If that must not happen, give each user a pool.

    What does not concern one connection is the app's pool's: `open`, `close`, `get_stats`, `name`, ….

    Args:
        pool: Of the app's role; a pooled one is welcome.
        setting: Where the policy looks, a name with a dot; `None` sets none.
        as_role: Also become the user's role (`SET LOCAL ROLE`), so that `current_user` is it. The app's role must
            have been granted that: `GRANT "ann@corp.example" TO app`.
        session_reset: As of `LakebasePool`, by default `"discard"` here: the pool's `configure` is called after each
            block, since it is cleared as well. `None` leaves the session as the block left it.

    Raises:
        ConfigurationError: A setting that cannot be.
    """

    def __init__(
        self,
        pool: ConnectionPool[CT],
        *,
        setting: str | None = "app.user",
        as_role: bool = False,
        session_reset: SessionReset | None = "discard",
    ) -> None:
        super().__init__(pool, setting=setting, as_role=as_role, session_reset=session_reset)

    @contextmanager
    def connection(self, timeout: float | None = None, *, identity: UserIdentity | None = None) -> Iterator[CT]:
        """
        A context manager: a connection in a transaction of this user; of the request's user if `None`.

        Raises:
            IdentityError: There is none, or it proves nothing. No connection is taken.
            LoginError: The database has no such role, or the app's role may not act as it.
        """
        user = self._user(identity)
        with self.pool.connection(timeout) as connection:
            was_autocommit = run(self._beginning(connection, user))
            try:
                yield connection
            except BaseException as error:
                if not run(self._ending(connection, error, was_autocommit=was_autocommit)):
                    raise
            else:
                run(self._ending(connection, None, was_autocommit=was_autocommit))

    def getconn(self, timeout: float | None = None) -> NoReturn:
        """Refused: nothing would end the user's transaction. Use `connection()`."""
        self._refuse_loan()

    def putconn(self, conn: CT) -> NoReturn:
        """Refused, as `getconn`."""
        self._refuse_loan()

    def checkpoint(self, connection: CT) -> None:
        """
        Commit, before a request's answer goes out, and begin the user's next transaction.

        That one is open, so a stream should give the connection back before: `Injected[App.connection, "handler"]`.
        """
        run(self._continuing(connection))


class AsyncUserScopedPool(_UserScope[AsyncConnectionPool[ACT]], AsyncConnectionPool[ACT]):
    """`UserScopedPool` for asyncio, a `psycopg_pool.AsyncConnectionPool`."""

    def __init__(
        self,
        pool: AsyncConnectionPool[ACT],
        *,
        setting: str | None = "app.user",
        as_role: bool = False,
        session_reset: SessionReset | None = "discard",
    ) -> None:
        super().__init__(pool, setting=setting, as_role=as_role, session_reset=session_reset)

    @asynccontextmanager
    async def connection(
        self, timeout: float | None = None, *, identity: UserIdentity | None = None
    ) -> AsyncIterator[ACT]:
        """As `UserScopedPool.connection`."""
        user = self._user(identity)
        async with self.pool.connection(timeout) as connection:
            was_autocommit = await arun(self._beginning(connection, user))
            try:
                yield connection
            except BaseException as error:
                if not await arun(self._ending(connection, error, was_autocommit=was_autocommit)):
                    raise
            else:
                await arun(self._ending(connection, None, was_autocommit=was_autocommit))

    async def getconn(self, timeout: float | None = None) -> NoReturn:
        """As `UserScopedPool.getconn`."""
        self._refuse_loan()

    async def putconn(self, conn: ACT) -> NoReturn:
        """As `UserScopedPool.putconn`."""
        self._refuse_loan()

    async def checkpoint(self, connection: ACT) -> None:
        """As `UserScopedPool.checkpoint`."""
        await arun(self._continuing(connection))
