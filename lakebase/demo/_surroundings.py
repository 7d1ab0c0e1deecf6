"""The environment variables that an app finds on Databricks, for as long as the demo runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["surroundings"]

# What these say about another database or workspace must not get in.
_OTHERS = ("PG", "DATABRICKS_", "LAKEBASE_", "ARM_", "GOOGLE_CREDENTIALS")
# Which programs a local Lakebase is to run.
_LOCAL = "LAKEBASE_LOCAL_"


@contextmanager
def surroundings(variables: Mapping[str, str]) -> Iterator[None]:
    """
    Set these variables, and none of the kind besides; put everything back at the end.

    A proxy is passed by: all that the demo talks to is on this machine.
    """
    before = dict(os.environ)
    for name in before:
        if name.startswith(_OTHERS) and not name.startswith(_LOCAL):
            del os.environ[name]
    os.environ.update(variables)
    os.environ["DATABRICKS_CONFIG_FILE"] = os.devnull
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
