"""How messages name the command that adds an extra to this installation."""

from __future__ import annotations

import shlex
import sys

__all__ = ["install_command"]


def install_command(extra: str) -> str:
    """
    The command for a shell, for the Python that runs.

    pip takes the package as it is installed, from a checkout or a wheel, and adds what the extra needs.
    """
    return f"{shlex.quote(sys.executable)} -m pip install 'lakebase-pooling[{extra}]'"
