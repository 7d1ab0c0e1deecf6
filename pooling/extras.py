"""How messages and errors name the command that adds an extra of this package to its installation."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Extra", "install_command"]


def install_command(extra: str) -> str:
    """
    The command for a shell that installs what an extra of `lakebase-pooling` brings, for the running Python.

    pip takes the package as it is installed, from a checkout or a wheel, and adds what the extra needs.
    """
    return f"{shlex.quote(sys.executable)} -m pip install 'lakebase-pooling[{extra}]'"


class Extra:
    """A block of imports of what an extra brings: an `ImportError` in it names the command that installs that."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, ImportError):
            error.msg = f"{error}: {install_command(self._name)}"
