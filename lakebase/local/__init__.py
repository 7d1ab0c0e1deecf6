"""A Lakebase on this machine: a real Postgres behind a gateway that takes minted tokens, and a workspace API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import LocalLakebaseError
    from .faults import Fault
    from .lake import LocalLakebase
    from .stats import LocalStats, UserStats

__all__ = ["Fault", "LocalLakebase", "LocalLakebaseError", "LocalStats", "UserStats"]

_MODULES = {
    "Fault": "faults",
    "LocalLakebase": "lake",
    "LocalLakebaseError": "errors",
    "LocalStats": "stats",
    "UserStats": "stats",
}


def __getattr__(name: str) -> Any:
    """Import a public name with its first use: the commands that talk to one that runs need none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
