"""What the gateway asks Postgres and tells it, on one connection as the superuser."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg

from .address import SUPERUSER, Address
from .roles import IDENTITY_GROUP

__all__ = ["LoginQueries", "RoleFacts"]


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """What Postgres knows of a role that decides on its login."""

    is_identity: bool
    password_verifier: str | None


_ROLE_FACTS = """
    select exists (select from pg_auth_members m join pg_roles g on g.oid = m.roleid
                    where m.member = r.oid and g.rolname = %s),
           case when r.rolvaliduntil < now() then null else r.rolpassword end
      from pg_authid r where r.rolname = %s
"""

_IDLE = """
    select extract(epoch from clock_timestamp()
                              - max(case when state = 'idle' then state_change else clock_timestamp() end))
      from pg_stat_activity where backend_type = 'client backend' and usename <> %s
"""

_TERMINATE_ALL = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
     where backend_type = 'client backend' and usename <> %s
"""


class LoginQueries:
    """
    Queries about roles and sessions. Used on the gateway's loop alone.

    Each login asks again, so a role that SQL has just changed is seen as it is now.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def find_role(self, name: str) -> RoleFacts | None:
        """What a login of that role depends on; `None` if there is no such role."""
        row = await self._fetch_row(_ROLE_FACTS, (IDENTITY_GROUP, name))
        return RoleFacts(*row) if row else None

    async def idle_seconds(self) -> float | None:
        """For how long no client has run a statement: 0 while one does, `None` if none is connected."""
        row = await self._fetch_row(_IDLE, (SUPERUSER,))
        return None if row is None or row[0] is None else float(row[0])

    async def terminate(self, pids: list[int]) -> None:
        """End the sessions of those server processes."""
        await self._fetch_row("select count(pg_terminate_backend(pid)) from unnest(%s::int[]) as pid", (pids,))

    async def terminate_all(self) -> None:
        """End the sessions of all clients, a pooler's too."""
        await self._fetch_row(_TERMINATE_ALL, (SUPERUSER,))

    async def close(self) -> None:
        """Close the connection; the next query opens another."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _fetch_row(self, query: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        async with self._lock:
            try:
                return await self._execute(query, parameters)
            except psycopg.OperationalError:
                # The server was restarted since the last query. If the second attempt fails too, there is no server.
                await self.close()
                return await self._execute(query, parameters)

    async def _execute(self, query: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._connection is None or self._connection.closed:
            settings = self._address.superuser_settings()
            self._connection = await psycopg.AsyncConnection.connect(**settings, autocommit=True)
        return await (await self._connection.execute(query.encode(), parameters)).fetchone()
