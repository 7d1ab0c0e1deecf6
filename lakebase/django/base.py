"""The backend itself; Django looks for it here."""

from __future__ import annotations

from typing import Any, ClassVar

from psycopg import IsolationLevel

from pooling.extras import Extra

with Extra("django"):
    from django.core.exceptions import ImproperlyConfigured
    from django.db.backends.postgresql import base
    from django.db.transaction import TransactionManagementError

from .._secrets import WithoutLocals
from ..drivers import lakebase_pg_config
from ..manager import LakebasePoolManager
from ._options import Options
from ._requests import Lent, RequestConnections, current_request

__all__ = ["DatabaseWrapper"]


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc] # Django has no types
    """
    Django's own backend for Postgres, which connects as a `LakebasePoolConfig` says.

    Each connection has a credential of the moment. Nothing is looked up before the first.

    With `per_user` in `OPTIONS`, the connections of a request are lent by the pool of its user, and given back at its
    end, whatever `CONN_MAX_AGE` says. A request without a user is an `IdentityError`. Outside of requests, as in
    management commands, the connection is the app's.
    """

    settings_dict: dict[str, Any]
    connection: Any
    _of_requests: ClassVar[dict[tuple[str, str | None], RequestConnections]] = {}
    _lent: Lent | None = None  # where the present connection comes from, if it is a user's

    def __init__(self, settings_dict: dict[str, Any], *arguments: Any, **keywords: Any) -> None:
        super().__init__(settings_dict, *arguments, **keywords)
        self._is_per_user = Options.of(settings_dict).per_user  # refuses at once what cannot work

    def ensure_connection(self) -> None:
        """
        Connect, unless there is a connection of the right user. Called for each cursor and each transaction.

        Raises:
            IdentityError: The current request has no user.
            TransactionManagementError: The transaction that is open is another user's.
        """
        if self._is_per_user:
            self._leave_other_user()
        super().ensure_connection()

    def _leave_other_user(self) -> None:
        """Give back a connection that is not the current request's user's."""
        request = current_request()
        lent = self._lent
        if self.connection is None or (request is None if lent is None else lent.is_for(request)):
            return
        if self.in_atomic_block:
            has = "the app" if lent is None else lent.identity.user
            wants = "the app" if request is None else request[1].user
            raise TransactionManagementError(
                f"the open transaction is of {has}, and this query of {wants}: a transaction has one user and one "
                "request. End the block first. A TestCase runs in a transaction of the app; let tests whose requests "
                "have users be a TransactionTestCase."
            )
        self.close()

    def get_connection_params(self) -> dict[str, Any]:
        """
        The driver's arguments for one more connection; of a user's, what his or her pool does not know by itself.

        Blocks for a request to the workspace, if it has to be asked for the host or the role, once in a process.
        """
        with WithoutLocals():
            return self._connection_params()

    def _connection_params(self) -> dict[str, Any]:
        options = Options.of(self.settings_dict)
        if options.per_user and current_request() is not None:
            return self._djangos_params("its pool knows it", options.others)
        arguments = lakebase_pg_config(options.config)
        return {**self._djangos_params(arguments.pop("dbname"), options.others), **arguments}

    def _djangos_params(self, database: str, others: dict[str, Any]) -> dict[str, Any]:
        """Django's own part: cursors, adapters, and what its further options mean."""
        given = self.settings_dict
        nowhere = dict.fromkeys(("HOST", "PORT", "USER", "PASSWORD"), "")
        self.settings_dict = {**given, **nowhere, "NAME": database, "OPTIONS": others}
        try:
            return super().get_connection_params()  # type: ignore[no-any-return]
        finally:
            self.settings_dict = given

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect, or borrow from the pool of the request's user. No frame of an error shows the password."""
        with WithoutLocals():
            request = current_request() if self._is_per_user else None
            if request is None:
                return super().get_new_connection(conn_params)
            level = self.settings_dict["OPTIONS"].get("isolation_level")
            self.isolation_level = _checked_level(level)
            self._lent = self._connections_of_requests(conn_params).lend(*request)
            if level is not None:
                self._lent.connection.isolation_level = self.isolation_level
            return self._lent.connection

    def _connections_of_requests(self, conn_params: dict[str, Any]) -> RequestConnections:
        key = self.alias, self.settings_dict["NAME"]
        found = self._of_requests.get(key)
        if found is None:
            options = Options.of(self.settings_dict)
            kwargs = {**conn_params, "autocommit": True}  # as Django sets it at once
            kwargs.pop("dbname")
            manager = LakebasePoolManager(options.config, kwargs=kwargs, name=self.alias, **options.limits)
            found = self._of_requests.setdefault(key, RequestConnections(manager))  # the first of several threads wins
        return found

    def _close(self) -> None:
        lent, self._lent = self._lent, None
        if lent is None:
            super()._close()
            return
        self.connection = None  # the next borrower's
        with self.wrap_database_errors:  # pyright: ignore[reportGeneralTypeIssues] - untyped, in Django
            lent.give_back()

    def close_if_unusable_or_obsolete(self) -> None:
        """Called by Django before and after each request: a user's connection does not outlive its request."""
        if self._lent is None:
            super().close_if_unusable_or_obsolete()
        elif not self.in_atomic_block:
            self.close()

    def close_pool(self) -> None:
        """Close the pools of the users. Called by Django before a test database is dropped or copied."""
        for key in [key for key in self._of_requests if key[0] == self.alias]:
            self._of_requests.pop(key).close()
        close_djangos = getattr(super(), "close_pool", None)  # from Django 5.1 on
        if close_djangos is not None:
            close_djangos()


def _checked_level(level: Any) -> IsolationLevel:
    try:
        return IsolationLevel.READ_COMMITTED if level is None else IsolationLevel(level)
    except ValueError as error:
        raise ImproperlyConfigured(f"OPTIONS['isolation_level']={level!r} is no psycopg.IsolationLevel") from error
