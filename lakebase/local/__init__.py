"""A Lakebase on this machine: a real Postgres behind a gateway that takes minted tokens, and a workspace API."""

from ._faults import Fault
from ._lake import LocalLakebase
from ._stats import LocalStats, UserStats
from .errors import LocalLakebaseError

__all__ = ["Fault", "LocalLakebase", "LocalLakebaseError", "LocalStats", "UserStats"]
