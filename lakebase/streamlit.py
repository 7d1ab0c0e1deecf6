"""
Streamlit: a connection for `st.connection` that gives every session the connections of its own user.

The user is in the headers of the WebSocket over which a session talks, so the user's token is as old as that: an hour
after the page was loaded it gives no further login. `explain_errors` then asks the user to load the page anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.abc import Params

from pooling.extras import Extra

with Extra("streamlit"):
    import streamlit as st
    from streamlit.connections import BaseConnection

from pooling.locks import make_lock

from .config import LakebasePoolConfig
from .errors import ConfigurationError, IdentityError
from .identity import UserIdentity
from .manager import LakebasePoolManager
from .web import answer_error

if TYPE_CHECKING:
    import pandas as pd
    from psycopg import Connection

    from .pool import LakebasePool

__all__ = ["LakebaseConnection", "explain_errors"]

logger = logging.getLogger(__name__)

#: Most results that `query` keeps for one `ttl`, of all users together.
_MOST_RESULTS = 1000

Read = Callable[[str, str | None, LiteralString, Params | None, UserIdentity], "pd.DataFrame"]


class LakebaseConnection(BaseConnection[LakebasePoolManager]):
    """
    A pool for each user of the app: `st.connection("lakebase", type=LakebaseConnection, max_total=50)`.

    One for all sessions of the process. Whose connections a script gets is decided each time by the headers of its
    session, so row-level security sees the user. A session that reconnects has the newer token.

    Streamlit interrupts a script in an `st` call, when the user does something else or leaves. A block of `connection`
    that is interrupted is rolled back, and its connection goes back to the pool at once. `st.rerun` and `st.stop` are
    such interruptions, too: call them after the block.

    Args:
        connection_name: Of the section `[connections.NAME]` in `secrets.toml`, and the name of the pools.
        **kwargs: Fields of `LakebasePoolConfig`, and arguments of `LakebasePoolManager` such as `max_total`. They are
            added to that section, which may have the same; what is missing comes from the environment.

    Raises:
        ConfigurationError: A setting that cannot work, or that neither has.
    """

    def __init__(self, connection_name: str, **kwargs: Any) -> None:
        self._lock = make_lock()
        self._cached: dict[float, Read] = {}
        super().__init__(connection_name, **kwargs)

    def _connect(self, **kwargs: Any) -> LakebasePoolManager:
        given: dict[str, Any] = {"name": self._connection_name, **self._secrets.to_dict(), **kwargs}
        given.pop("type", None)  # of `st.connection`
        base = {name: given.pop(name) for name in LakebasePoolConfig.__dataclass_fields__ if name in given}
        return LakebasePoolManager(base, **given)

    @property
    def manager(self) -> LakebasePoolManager:
        """The users' pools, for their numbers: `db.manager.stats()`."""
        with self._lock:  # two sessions after a `reset` must not make one each
            return self._instance

    def identity(self) -> UserIdentity:
        """
        The user of the session whose script runs. Override it where the app has its users from elsewhere.

        Raises:
            IdentityError: The session's headers name no user, or there is no session, as in a thread of your own.
        """
        headers = st.context.headers
        if not headers:
            raise IdentityError(
                "there are no headers of a session: in a thread of your own, give identity=, which the script has from "
                "identity(). In a test, override identity()."
            )
        return UserIdentity.from_headers([(name, value) for name in headers for value in headers.get_all(name)])

    def pool(self, identity: UserIdentity | None = None) -> LakebasePool[Connection[Any]]:
        """
        The pool of this user, by default of the session's. Does no I/O.

        It is a `psycopg_pool.ConnectionPool`, for libraries that want one.

        Raises:
            IdentityError: There is no user, or the headers do not prove it.
        """
        return self.manager.for_user(self.identity() if identity is None else identity)

    def connection(
        self, timeout: float | None = None, *, identity: UserIdentity | None = None
    ) -> AbstractContextManager[Connection[Any]]:
        """
        A context manager: a connection of this user, committed at the block's end, rolled back where the block raises.

        Args:
            timeout: Seconds to wait for it; `None` takes the pool's.
            identity: The user; `None` is the session's.

        Raises:
            IdentityError: There is no user, or the headers do not prove it.
            CredentialError: The user's token mints no password, as when it has expired.
            LoginError: The server refuses the user.
        """
        return self.pool(identity).connection(timeout)

    def query(
        self,
        sql: LiteralString,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        ttl: float | timedelta = 0.0,
    ) -> pd.DataFrame:
        """
        The rows of a statement that only reads, as the session's user sees them.

        Results are kept for each token by itself: no user gets another's, nor does a request that only names a user.
        A write of the same user is not seen in what is kept.

        Args:
            sql: With placeholders, as psycopg has them: `%s` or `%(name)s`.
            params: Their values; with `ttl`, such as Streamlit can hash.
            ttl: Seconds for which the result is kept. Of all results with the same `ttl` the latest 1,000 are.

        Raises:
            psycopg.errors.ReadOnlySqlTransaction: The statement writes.
            ConfigurationError: A `ttl` that is none.
            IdentityError, CredentialError, LoginError: As in `connection`.
        """
        identity = self.identity()
        user, token = identity.pool_key(), identity.fingerprint  # refuses a user who is only named, whatever is kept
        seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
        if not seconds >= 0:
            raise ConfigurationError(f"ttl={ttl!r}: expected a number of seconds, 0 or more", field="ttl")
        if seconds == 0:
            return self._read(identity, sql, params)
        return self._reading_for(seconds)(user, token, sql, params, identity)

    def _read(self, identity: UserIdentity, sql: LiteralString, params: Params | None) -> pd.DataFrame:
        import pandas as pd

        with self.connection(identity=identity) as connection:
            connection.read_only = True
            cursor = connection.execute(sql, params)
            columns = [column.name for column in cursor.description or ()]
            return pd.DataFrame(cursor.fetchall(), columns=columns)

    def _reading_for(self, ttl: float) -> Read:
        """
        The function that keeps its results for so long.

        Its arguments are the key of what is kept, but for the last one: Streamlit leaves out what begins with `_`.
        """
        if (known := self._cached.get(ttl)) is not None:
            return known

        def read(
            user: str,  # noqa: ARG001 - of the key
            token: str | None,  # noqa: ARG001 - of the key
            sql: LiteralString,
            params: Params | None,
            _identity: UserIdentity,
        ) -> pd.DataFrame:
            return self._read(_identity, sql, params)

        # By this name Streamlit tells functions apart; those of the same name and another `ttl` replace each other's.
        read.__qualname__ = f"lakebase_{self._connection_instance_id}_{ttl}".replace(".", "_")
        made = st.cache_data(ttl=ttl, max_entries=_MOST_RESULTS, show_spinner=False)(read)
        return self._cached.setdefault(ttl, made)

    def reset(self) -> None:
        """
        Close the connections, and read the settings anew at the next use.

        Waits at most 5 s for those that other sessions use; they are closed as they come back.
        """
        with self._lock:
            manager, self._raw_instance = self._raw_instance, None
        if manager is not None:
            manager.close_all()

    def close(self) -> None:
        """As `reset`; Streamlit calls it when its cache of resources is cleared."""
        self.reset()


@contextmanager
def explain_errors(
    reload: str = "Your sign-in has expired. Reload the page; copy first what you have typed.",
) -> Iterator[None]:
    """
    Around a script, or a fragment: ends the run with a text for the user where the user gets no connection.

    Which errors these are, `lakebase.answer_error` says: a sign-in that is missing or too old, a user who may not use
    the database, and one that is busy. Others are raised. The error's own message is logged.

    A connection that is open outlives the token: what runs is not disturbed, and what it has written is committed.

    Args:
        reload: The text where the workspace does not accept the session's token; a newer one comes with the page.
    """
    try:
        yield
    except Exception as error:
        answer = answer_error(error)
        if answer is None:
            raise
        logger.warning("%s", error)
        st.error(reload if answer.status == HTTPStatus.UNAUTHORIZED else f"Sorry: {answer.detail}.")
        st.stop()
