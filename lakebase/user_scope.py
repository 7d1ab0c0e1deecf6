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
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from psycopg import NotSupportedError, Rollback
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from psycopg_pool.abc import ACT, CT

from ._acting import acting_for, role_refusal
from ._checkpoint import has_to_commit
from ._delegating import Delegating
from ._driver_state import sealing
from ._secrets import HiddenText
from ._session_reset import SessionReset, check_session_reset, ending_clean_block
from ._steps import arun, run
from ._token_owners import Owner, TokenOwners, check_owner
from .errors import ConfigurationError, IdentityError
from .identity import UserIdentity, request_with_user

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
        trust_headers: bool = False,
        verify_every: float = 300.0,
        workspace_url: str | None = None,
    ) -> None:
        if not callable(getattr(pool, "connection", None)):
            raise ConfigurationError(
                f"pool is of type {type(pool).__name__}: expected the app's pool, such as create_lakebase_pool() makes",
                field="pool",
            )
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
        if isinstance(verify_every, bool) or not isinstance(verify_every, (int, float)) or not verify_every > 0:
            raise ConfigurationError(
                f"verify_every={verify_every!r}: expected a number of seconds above 0", field="verify_every"
            )
        if workspace_url is None:
            workspace_url = getattr(getattr(pool, "config", None), "workspace_url", None)
        self._owners = TokenOwners(workspace_url, max_age=verify_every)
        self.trust_headers = trust_headers
        self.pool = pool
        self.setting = setting
        self.as_role = as_role
        self.session_reset = session_reset

    @property
    def _pool_behind(self) -> P:  # type: ignore[override] # theirs can be set
        return self.pool

    def _finding_user(self, identity: UserIdentity | None, timeout: float | None) -> Steps[tuple[str, float | None]]:
        """
        The user for whom a transaction is to act, and what is left of the timeout.

        Raises:
            IdentityError: There is none, or it is not proved.
        """
        identity = _identity_of(identity)
        if self.trust_headers:
            return identity.user, timeout
        user = identity.pool_key()
        if identity.token is None:  # the app's own word
            return user, timeout
        token = HiddenText(identity.token)
        owner = self._owners.known(token)
        if owner is None:
            begun = monotonic()
            limit: float = getattr(self.pool, "timeout", 30.0) if timeout is None else timeout
            owner = yield partial(self._ask, token, limit)
            timeout = max(0.0, limit - (monotonic() - begun))
        check_owner(identity, owner)
        return user, timeout

    def _ask(self, token: str, timeout: float) -> Any:
        """Have the workspace say whose token it is; in asyncio, a coroutine function."""
        raise NotImplementedError

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
        yield from ending_clean_block(
            self.pool, connection, error, was_autocommit=was_autocommit, clears=self.session_reset is not None
        )
        return isinstance(error, Rollback) and error.transaction is None

    def _refuse_loan(self) -> NoReturn:
        raise NotSupportedError(
            f"{type(self).__name__} has no getconn(): the transaction is the user's, and only a block can end it. "
            "Use connection()"
        )


def _identity_of(given: UserIdentity | None) -> UserIdentity:
    """What was given, or else the current request's."""
    if given is None:
        context = request_with_user()
        given = None if context is None else context.get("identity")
    if isinstance(given, UserIdentity):
        return given
    raise IdentityError(
        "the transaction has no user: there is no request with an identity (a UserIdentity) here. Open one, give "
        "identity=, or use the app's own pool for work that belongs to no user."
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

    The database believes the app, so the app has to know the user. An identity with a token is verified: the workspace
    is asked whose token it is, once for each token and `verify_every`. One from headers without a token is refused. One
    that the app has built without a token is believed.

    What does not concern one connection is the app's pool's: `open`, `close`, `get_stats`, `name`, ….

    Args:
        pool: Of the app's role; a pooled one is welcome.
        setting: Where the policy looks, a name with a dot; `None` sets none.
        as_role: Also become the user's role (`SET LOCAL ROLE`), so that `current_user` is it. The app's role must
            have been granted that: `GRANT "ann@corp.example" TO app`.
        session_reset: As of `LakebasePool`, by default `"discard"` here: the pool's `configure` is called after each
            block, since it is cleared as well. `None` leaves the session as the block left it.
        trust_headers: Believe each identity as it is, also one from headers without a token, and verify none. Only
            for an app that no request can reach except through a proxy that sets the headers.
        verify_every: Seconds after which a token is verified again.
        workspace_url: Of the workspace that issues the tokens; `None` is that of the pool's configuration, or
            `DATABRICKS_HOST`.

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
        trust_headers: bool = False,
        verify_every: float = 300.0,
        workspace_url: str | None = None,
    ) -> None:
        super().__init__(
            pool,
            setting=setting,
            as_role=as_role,
            session_reset=session_reset,
            trust_headers=trust_headers,
            verify_every=verify_every,
            workspace_url=workspace_url,
        )

    @contextmanager
    def connection(self, timeout: float | None = None, *, identity: UserIdentity | None = None) -> Iterator[CT]:
        """
        A context manager: a connection in a transaction of this user; of the request's user if `None`.

        Raises:
            RequestContextError: The request has ended.
            IdentityError: There is none, or it proves nothing, or its token is another user's. No connection is taken.
            CredentialError: Its token could not be verified, since the workspace could not be asked.
            LoginError: The database has no such role, or the app's role may not act as it.
        """
        user, timeout = run(self._finding_user(identity, timeout))
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

    def _ask(self, token: str, timeout: float) -> Owner:
        return self._owners.ask(token, timeout)


class AsyncUserScopedPool(_UserScope[AsyncConnectionPool[ACT]], AsyncConnectionPool[ACT]):
    """`UserScopedPool` for asyncio, a `psycopg_pool.AsyncConnectionPool`."""

    def __init__(
        self,
        pool: AsyncConnectionPool[ACT],
        *,
        setting: str | None = "app.user",
        as_role: bool = False,
        session_reset: SessionReset | None = "discard",
        trust_headers: bool = False,
        verify_every: float = 300.0,
        workspace_url: str | None = None,
    ) -> None:
        super().__init__(
            pool,
            setting=setting,
            as_role=as_role,
            session_reset=session_reset,
            trust_headers=trust_headers,
            verify_every=verify_every,
            workspace_url=workspace_url,
        )

    @asynccontextmanager
    async def connection(
        self, timeout: float | None = None, *, identity: UserIdentity | None = None
    ) -> AsyncIterator[ACT]:
        """As `UserScopedPool.connection`."""
        user, timeout = await arun(self._finding_user(identity, timeout))
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

    async def _ask(self, token: str, timeout: float) -> Owner:
        return await self._owners.aask(token, timeout)
