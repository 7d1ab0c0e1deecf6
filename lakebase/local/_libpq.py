"""What libpq would add to a connection by itself, from the caller's environment variables and service file."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import pq

__all__ = ["plain_settings", "without_libpq"]


def without_libpq(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without a client's variables: they are for another database."""
    return {name: value for name, value in environ.items() if not name.startswith("PG")}


def plain_settings() -> dict[str, str]:
    """
    Settings that give libpq its compiled-in values back, wherever a variable (`PGSSLNEGOTIATION`) or the service of
    `PGSERVICE` has others.

    A `PGSERVICE` that nobody has defined cannot be undone by any setting: libpq refuses to connect at all.
    """
    return {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in pq.Conninfo.get_defaults()
        # Those without a variable are numbers for which nothing would be no value, and matter on a network only.
        if option.envvar is not None and option.keyword != b"service" and option.val not in (None, option.compiled)
    }
