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
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psycopg_pool import AsyncConnectionPool, ConnectionPool
from psycopg_pool.abc import ACT, CT

from pooling import RequestContext

from ._checkpoint import has_to_commit
from ._steps import arun, run
from .errors import ConfigurationError, IdentityError
from .identity import UserIdentity

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["AsyncUserScopedPool", "UserScopedPool"]

P = TypeVar("P")

_SET = "SELECT set_config(%s, %s, true)"
_SETTINGS = "_lakebase_user_settings"  # of the connection: what its present block sets


class _UserScope(Generic[P]):
    def __init__(self, pool: P, *, setting: str | None = "app.user", as_role: bool = False) -> None:
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
        self.pool = pool
        self.setting = setting
        self.as_role = as_role

    def _settings(self, identity: UserIdentity | None) -> list[tuple[str, str]]:
        if identity is None:
            context = RequestContext.current()
            identity = None if context is None else context.get("identity")
        if not isinstance(identity, UserIdentity):
            raise IdentityError(
                "the transaction has no user: there is no request with an identity (a UserIdentity) here. Open one, "
                "give identity=, or use the app's own pool for work that belongs to no user."
            )
        user = identity.pool_key()
        settings = [] if self.setting is None else [(self.setting, user)]
        # The role last: it may not be allowed to set the other.
        return [*settings, ("role", user)] if self.as_role else settings

    def _continuing(self, connection: Any) -> Steps[None]:
        """Commit the user's transaction, and begin the next one of the same user: no statement runs without one."""
        if not has_to_commit(connection):
            return
        yield partial(connection.execute, "COMMIT")  # not `commit()`, which the driver refuses inside the block
        if connection.autocommit:
            yield partial(connection.execute, "BEGIN")
        for setting in connection.__dict__[_SETTINGS]:
            yield partial(connection.execute, _SET, setting)


class UserScopedPool(_UserScope[ConnectionPool[CT]], Generic[CT]):
    """
    Looks like a pool; each connection is in a transaction of the request's user.

    A policy reads the user: `USING (owner = current_setting('app.user', true))`.
    Outside of such a transaction that is null or empty, and no row is seen.
    The transaction is the block: it is committed at its end, rolled back if the block raises, and neither may be done
    inside, since what follows would have no user.

    A user who can run arbitrary SQL in it can also set the setting. If that must not happen, give each user a pool.

    Args:
        pool: Of the app's role; a pooled one is welcome.
        setting: Where the policy looks, a name with a dot; `None` sets none.
        as_role: Also become the user's role (`SET LOCAL ROLE`), so that `current_user` is it. The app's role must
            have been granted that: `GRANT "ann@corp.example" TO app`.

    Raises:
        ConfigurationError: A setting that cannot be.
    """

    def __init__(self, pool: ConnectionPool[CT], *, setting: str | None = "app.user", as_role: bool = False) -> None:
        super().__init__(pool, setting=setting, as_role=as_role)

    @contextmanager
    def connection(self, timeout: float | None = None, *, identity: UserIdentity | None = None) -> Iterator[CT]:
        """
        A context manager: a connection in a transaction of this user; of the request's user if `None`.

        Raises:
            IdentityError: There is none, or it proves nothing. No connection is taken.
        """
        settings = self._settings(identity)
        with self.pool.connection(timeout) as connection, connection.transaction():
            setattr(connection, _SETTINGS, settings)
            for setting in settings:
                connection.execute(_SET, setting)
            yield connection

    def checkpoint(self, connection: CT) -> None:
        """
        Commit, before a request's answer goes out, and begin the user's next transaction.

        That one is open, so a stream should give the connection back before: `Injected[App.connection, "handler"]`.
        """
        run(self._continuing(connection))


class AsyncUserScopedPool(_UserScope[AsyncConnectionPool[ACT]], Generic[ACT]):
    """`UserScopedPool` for asyncio."""

    def __init__(
        self, pool: AsyncConnectionPool[ACT], *, setting: str | None = "app.user", as_role: bool = False
    ) -> None:
        super().__init__(pool, setting=setting, as_role=as_role)

    @asynccontextmanager
    async def connection(
        self, timeout: float | None = None, *, identity: UserIdentity | None = None
    ) -> AsyncIterator[ACT]:
        """As `UserScopedPool.connection`."""
        settings = self._settings(identity)
        async with self.pool.connection(timeout) as connection, connection.transaction():
            setattr(connection, _SETTINGS, settings)
            for setting in settings:
                await connection.execute(_SET, setting)
            yield connection

    async def checkpoint(self, connection: ACT) -> None:
        """As `UserScopedPool.checkpoint`."""
        await arun(self._continuing(connection))
