"""The users, their notes under row-level security, and how each connects."""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import Any

import psycopg

from lakebase import LakebasePoolConfig, UserIdentity
from lakebase.local import LocalLakebase
from lakebase.local.errors import LocalLakebaseError
from lakebase.local.postgres.address import SUPERUSER

from .record import ROWS

SCHEMA = """
drop table if exists notes, journal;
create table notes (owner text not null default current_user, text text not null);
create table journal (request text primary key, owner text not null default current_user);
alter table notes enable row level security;
alter table journal enable row level security;
create policy own_notes on notes using (owner = current_user) with check (owner = current_user);
create policy own_entries on journal using (owner = current_user) with check (owner = current_user);
grant select on notes to public;
grant insert on journal to public;
"""


class Setup:
    """
    The users and roles of a proof, their rows, and how each connects.

    Args:
        lake: A local Lakebase that only this proof uses.
        users: Number of users, each with its own token.
        seed: Seed of all random choices.
        timeout: Seconds that a borrower may wait. Longer than any outage.
    """

    def __init__(self, lake: LocalLakebase, *, users: int, seed: int, timeout: float) -> None:
        self.lake = lake
        self.seed = seed
        self.timeout = timeout
        self.users = [f"user{number}@corp.example" for number in range(users)]
        self.tokens = {user: lake.add_user(user) for user in self.users}
        self.app = lake.client_id
        self.pooled = [f"report{number}" for number in range(3)] if lake.pooled_host is not None else []
        for role in self.pooled:
            lake.add_password_role(role, f"password of {role}")
        self.app_config = _as_an_app(lake, timeout)
        admin = lake.config(lake.admin_user)
        self.base: dict[str, Any] = {
            "host": lake.host,
            "port": lake.port,
            "database": lake.database,
            "endpoint": lake.endpoint,
            "workspace_url": lake.workspace_url,
            "ssl_mode": "verify-full",
            "ssl_root_cert": str(lake.ca_file),
            "timeout": timeout,
        }
        with psycopg.connect(**admin.connect_kwargs(), password=lake.mint(lake.admin_user)) as connection:
            connection.execute(SCHEMA)
            # The owner of a table sees past its policies.
            for owner in (*self.users, self.app, *self.pooled):
                rows = [(owner, f"note {number} of {owner}") for number in range(ROWS)]
                connection.cursor().executemany("insert into notes values (%s, %s)", rows)
        lake.wait_for_connections(0)

    def identity(self, user: str) -> UserIdentity | None:
        """The identity of a request, from headers with the user's present token; `None` for the app's own work."""
        token = self.tokens.get(user)
        if token is None:
            return None
        return UserIdentity.from_headers({"X-Forwarded-Email": user, "X-Forwarded-Access-Token": token})

    def pooled_config(self, user: str) -> dict[str, Any] | None:
        """How a role with a password connects to the pooler; `None` for other users."""
        if user not in self.pooled:
            return None
        return {
            "host": self.lake.pooled_host,
            "port": self.lake.pooled_port,
            "pooled": True,
            "user": user,
            "password": f"password of {user}",
        }

    def entries(self) -> dict[str, str]:
        """Every request in the database, and its user."""
        admin = self.lake.config(self.lake.admin_user)
        with psycopg.connect(**admin.connect_kwargs(), password=self.lake.mint(self.lake.admin_user)) as connection:
            return dict(connection.execute("select request, owner from journal").fetchall())

    def beside(self) -> psycopg.Connection[Any] | None:
        """A superuser's connection that bypasses the gateway and its counts; `None` if Postgres is in a container."""
        return self._around(5432, SUPERUSER)

    def wait_for_pooler(self, timeout: float) -> None:
        """
        Block until the pooler, if there is one, serves each of its roles.

        Raises:
            LocalLakebaseError: It does not do so within `timeout` seconds.
        """
        deadline, again = monotonic() + timeout, threading.Event()
        for role in self.pooled:
            while True:
                try:
                    connection = self._around(6432, role)
                    if connection is not None:
                        with connection:
                            connection.execute("select 1")
                    break
                except psycopg.OperationalError as error:
                    if monotonic() > deadline:
                        raise LocalLakebaseError(f"the pooler is not back after {timeout:g} s") from error
                    again.wait(0.05)

    def _around(self, port: int, user: str) -> psycopg.Connection[Any] | None:
        socket = self.lake.socket_directory
        if socket is None:
            return None
        return psycopg.connect(
            host=os.fspath(socket), port=port, user=user, dbname=self.lake.database, autocommit=True, connect_timeout=5
        )

    def server_processes(self) -> int:
        """Postgres' count of the users' and the app's connections."""
        connection = self.beside()
        if connection is None:
            return self.lake.stats().open
        with connection:
            query = "select count(*) from pg_stat_activity where usename = any(%s)"
            (count,) = connection.execute(query, ([*self.users, self.app],)).fetchone() or (0,)
        return int(count)


def _as_an_app(lake: LocalLakebase, timeout: float) -> LakebasePoolConfig:
    """The app's service principal, with OAuth."""
    from databricks.sdk import WorkspaceClient

    client = WorkspaceClient(
        host=lake.workspace_url,
        client_id=lake.client_id,
        client_secret=lake.client_secret,
        auth_type="oauth-m2m",
    )
    return lake.config(lake.client_id, workspace_client=client, timeout=timeout)
