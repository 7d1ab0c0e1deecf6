"""The environment variables that an app finds on Databricks, for as long as the demo runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["app_environment"]

# Variables of these kinds describe another database or workspace.
_FOREIGN = ("PG", "DATABRICKS_", "LAKEBASE_", "ARM_", "GOOGLE_CREDENTIALS")
# These say which programs a local Lakebase runs.
_LOCAL = "LAKEBASE_LOCAL_"


@contextmanager
def app_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """
    Set these variables, and remove all others that describe a database or workspace; restore everything at the end.

    Proxies are not used: the demo talks to servers on this machine alone.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(_FOREIGN) and not name.startswith(_LOCAL):
            del os.environ[name]
    os.environ.update(variables)
    os.environ["DATABRICKS_CONFIG_FILE"] = os.devnull
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
