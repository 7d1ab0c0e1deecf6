"""The backend itself; Django looks for it here."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from .._secrets import WithoutLocals
from .._settings import LIBPQ_FIELDS, OPTION_FIELDS
from ..config import LakebasePoolConfig
from ..drivers import lakebase_pg_config

__all__ = ["DatabaseWrapper"]

_FROM_DJANGO = {"HOST": "host", "PORT": "port", "NAME": "database", "USER": "user", "PASSWORD": "password"}
_OF_POOLS = {*OPTION_FIELDS, "pool_options", "compute_units", "replicas", "create_schema", "transaction_mode_guard"}
_FIELDS = {name for name, item in LakebasePoolConfig.__dataclass_fields__.items() if item.init} - _OF_POOLS
_LIBPQ_OPTIONS = "options"


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc] # Django has no types
    """
    Django's own backend for Postgres, which connects as a `LakebasePoolConfig` says.

    Each connection has a credential of the moment. Nothing is looked up before the first.
    """

    settings_dict: dict[str, Any]

    def get_connection_params(self) -> dict[str, Any]:
        """
        The driver's arguments for one more connection.

        Blocks for a request to the workspace, if it has to be asked for the host or the role, once in a process.
        """
        with WithoutLocals():
            return self._connection_params()

    def _connection_params(self) -> dict[str, Any]:
        given = self.settings_dict
        config, others = _split(given)
        arguments = lakebase_pg_config(config)
        # Django's own part: cursors, adapters, and what its further options mean.
        nowhere = dict.fromkeys(("HOST", "PORT", "USER", "PASSWORD"), "")
        self.settings_dict = {**given, **nowhere, "NAME": arguments.pop("dbname"), "OPTIONS": others}
        try:
            parameters: dict[str, Any] = super().get_connection_params()
        finally:
            self.settings_dict = given
        return {**parameters, **arguments}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect. No frame of an error shows the password."""
        with WithoutLocals():
            return super().get_new_connection(conn_params)


def _split(given: dict[str, Any]) -> tuple[LakebasePoolConfig, dict[str, Any]]:
    """The configuration in Django's settings, and the options that are Django's or the driver's."""
    values = {field: given[name] for name, field in _FROM_DJANGO.items() if given.get(name) not in (None, "")}
    if str(values.get("port", "")).isdecimal():  # Django takes a text
        values["port"] = int(values["port"])
    others = {}
    for name, value in given["OPTIONS"].items():
        if (field := LIBPQ_FIELDS.get(name, name)) in _FIELDS:
            values.setdefault(field, value)
        elif name == _LIBPQ_OPTIONS:
            values["libpq_params"] = {name: value}
        else:
            others[name] = value
    return LakebasePoolConfig(**values), others
