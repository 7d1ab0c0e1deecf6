"""The settings of a local Lakebase, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..limits import direct_connections
from .checks import check_path, check_seconds, check_whole, check_yes_or_no
from .gateway import check_while_waking

if TYPE_CHECKING:
    import os

    from .gateway import WhileWaking

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What a local Lakebase is started with; see `LocalLakebase` for their meaning.

    Raises:
        ValueError: One of them has a value that makes no sense.
    """

    data_dir: str | os.PathLike[str] | None
    port: int
    workspace_port: int
    max_connections: int
    compute_units: float | None
    token_lifetime: float
    pooler: str | os.PathLike[str]
    postgres: str | os.PathLike[str]
    read_only: bool
    suspend_timeout: float | None
    wake_after: float
    while_waking: WhileWaking

    def __post_init__(self) -> None:
        check_whole("port", self.port, 0, 65535)
        check_whole("workspace_port", self.workspace_port, 0, 65535)
        check_whole("max_connections", self.max_connections, 1)
        check_seconds("token_lifetime", self.token_lifetime, least="more than 0")
        check_seconds("suspend_timeout", self.suspend_timeout, least="more than 0", none="never")
        check_seconds("wake_after", self.wake_after)
        check_while_waking(self.while_waking)
        check_yes_or_no("read_only", self.read_only)
        check_path("pooler", self.pooler)
        check_path("postgres", self.postgres)
        if self.data_dir is not None:
            check_path("data_dir", self.data_dir)
        if self.compute_units is not None:
            direct_connections(self.compute_units)  # raises for a size that no compute has

    @property
    def data_path(self) -> Path | None:
        """The directory for data and certificates; `None` keeps nothing."""
        return None if self.data_dir is None else Path(self.data_dir).absolute()

    @property
    def connection_limit(self) -> int:
        """Direct connections at once: what the size of the compute allows, else `max_connections`."""
        return self.max_connections if self.compute_units is None else direct_connections(self.compute_units)
