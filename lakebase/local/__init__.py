"""A Lakebase on this machine: a real Postgres behind a gateway that takes minted tokens, and a workspace API."""

from .errors import LocalLakebaseError
from .faults import Fault
from .lake import LocalLakebase
from .stats import LocalStats, UserStats

__all__ = ["Fault", "LocalLakebase", "LocalLakebaseError", "LocalStats", "UserStats"]
