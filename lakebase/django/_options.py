"""What may be in a database's `OPTIONS`, and whose setting each one is."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from psycopg import pq

from .._settings import LIBPQ_FIELDS, OPTION_FIELDS
from ..config import LakebasePoolConfig
from ..errors import ConfigurationError

__all__ = ["Options"]

_FROM_DJANGO = {"HOST": "host", "PORT": "port", "NAME": "database", "USER": "user", "PASSWORD": "password"}
_OF_POOLS = {*OPTION_FIELDS, "pool_options", "compute_units", "replicas", "create_schema", "transaction_mode_guard"}
_FIELDS = {name for name, item in LakebasePoolConfig.__dataclass_fields__.items() if item.init} - _OF_POOLS
_LIBPQ_OPTIONS = "options"
_PER_USER = "per_user"
#: Of the pools of users, so only with `per_user`.
_OF_MANAGER = ("max_total", "max_pools", "max_pool_idle")
_OF_USERS = (*OPTION_FIELDS, *_OF_MANAGER)
_DJANGOS = ("isolation_level", "assume_role", "server_side_binding", "pool")
_DRIVERS = ("cursor_factory", "row_factory", "prepare_threshold")
_NOT_PER_USER = {
    "pool": "each user has a pool already; max_size= and max_total= are its limits",
    "assume_role": "the connection is logged in as the request's user, whose role it has",
}


@dataclass(frozen=True)
class Options:
    """
    A database's settings, sorted.

    Args:
        config: Where to connect, and as whom.
        others: Options that are Django's or the driver's.
        per_user: Whether the connections of a request are its user's.
        limits: Of the users' pools.
    """

    config: LakebasePoolConfig
    others: dict[str, Any]
    per_user: bool
    limits: dict[str, Any]

    @classmethod
    def of(cls, given: dict[str, Any]) -> Options:
        """
        Those in one entry of `DATABASES`.

        Raises:
            ConfigurationError: An option is unknown, or cannot work.
        """
        options = given["OPTIONS"]
        per_user = check_options(options)
        values = {field: given[name] for name, field in _FROM_DJANGO.items() if given.get(name) not in (None, "")}
        if str(values.get("port", "")).isdecimal():  # Django takes a text
            values["port"] = int(values["port"])
        others, limits = {}, {}
        for name, value in options.items():
            if (field := LIBPQ_FIELDS.get(name, name)) in _FIELDS:
                values.setdefault(field, value)
            elif name == _LIBPQ_OPTIONS:
                values["libpq_params"] = {name: value}
            elif name in _OF_MANAGER:
                limits[name] = value
            elif name in OPTION_FIELDS:
                values[name] = value
            elif name != _PER_USER:
                others[name] = value
        return cls(LakebasePoolConfig(**values), others, per_user, limits)


def check_options(options: dict[str, Any]) -> bool:
    """
    Check the names of options; whether the connections are those of users.

    Raises:
        ConfigurationError: One is unknown, or does not go with another.
    """
    per_user = options.get(_PER_USER, False)
    if not isinstance(per_user, bool):
        raise ConfigurationError(f"OPTIONS[{_PER_USER!r}]={per_user!r}: expected True or False", field=_PER_USER)
    for name, value in options.items():
        if name in _OF_USERS and not per_user:
            raise ConfigurationError(
                f"OPTIONS[{name!r}] is a limit of the users' pools, and this database has none: set "
                f"OPTIONS[{_PER_USER!r}] to True, or leave it out",
                field=name,
            )
        if per_user and value and name in _NOT_PER_USER:
            raise ConfigurationError(
                f"OPTIONS[{name!r}] does not go with {_PER_USER!r}: {_NOT_PER_USER[name]}", field=name
            )
        if name not in _known_options():
            near = get_close_matches(str(name), _known_options(), 1, 0.7)
            hint = f"did you mean {near[0]!r}?" if near else "libpq has no such parameter either"
            raise ConfigurationError(f"OPTIONS[{name!r}] is unknown: {hint}", field=str(name))
    return per_user


@lru_cache(maxsize=1)
def _known_options() -> frozenset[str]:
    of_libpq = {each.keyword.decode() for each in pq.Conninfo.get_defaults()}
    return frozenset({*_FIELDS, *LIBPQ_FIELDS, *_OF_USERS, *_DJANGOS, *_DRIVERS, *of_libpq, _PER_USER})
