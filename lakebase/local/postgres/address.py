"""Where Postgres listens, and how to connect there whatever the caller's environment says to libpq."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import pq

__all__ = ["SUPERUSER", "Address", "environment_without_libpq"]

#: The superuser of the server itself; no client logs in as it.
SUPERUSER = "postgres"
_APPLICATION_NAME = "local Lakebase"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: the directory of its Unix socket, or a host; and the port."""

    host: str
    port: int

    @property
    def socket_path(self) -> str | None:
        """The Unix socket; `None` for a server on TCP."""
        return f"{self.host}/.s.PGSQL.{self.port}" if self.host.startswith("/") else None

    def superuser_settings(self, database: str = "postgres") -> dict[str, Any]:
        """Keyword arguments of `psycopg.connect` for the superuser."""
        return {
            **_libpq_defaults(),
            "host": self.host,
            "hostaddr": "",
            "port": self.port,
            "user": SUPERUSER,
            "dbname": database,
            "sslmode": "disable",
            "gssencmode": "disable",
            "target_session_attrs": "any",
            "options": "",
            "client_encoding": "utf8",
            "application_name": _APPLICATION_NAME,
            "connect_timeout": 10,
        }


def environment_without_libpq(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables of libpq: they are meant for another database."""
    return {name: value for name, value in environ.items() if not name.startswith("PG")}


def _libpq_defaults() -> dict[str, str]:
    """
    Settings that give libpq its compiled-in values back, where an environment variable (`PGSSLNEGOTIATION`) or the
    service of `PGSERVICE` has others.

    No setting can undo a `PGSERVICE` that is not defined: libpq then refuses to connect at all.
    """
    return {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in pq.Conninfo.get_defaults()
        # Options without a variable are numbers, for which an empty value is an error, and matter on a network only.
        if option.envvar is not None and option.keyword != b"service" and option.val not in (None, option.compiled)
    }
