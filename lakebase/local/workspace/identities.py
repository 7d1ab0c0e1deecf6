"""The tokens and secrets of a local Lakebase, kept beside its data so that they are valid in its next run too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import LocalLakebaseError
from ..files import write_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Identities"]


@dataclass(repr=False)
class Identities:
    """
    The tokens and secrets that were handed out, in clear, since they are handed out again.

    Attributes:
        path: The file; `None` keeps nothing.
        tokens: The latest workspace token of each user and service principal.
        secrets: The OAuth secrets of service principals.
        app: The client id of the app's service principal; empty before there is one.
    """

    path: Path | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    app: str = ""

    @classmethod
    def load(cls, data_dir: Path | None) -> Identities:
        """The identities of an earlier run in that directory; none for a new directory, or for `None`."""
        if data_dir is None:
            return cls()
        path = data_dir / "identities.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, dict(found["tokens"]), dict(found["secrets"]), str(found["app"]))
        except FileNotFoundError:
            return cls(path)
        except (ValueError, KeyError, TypeError) as error:
            raise LocalLakebaseError(f"{path} is damaged: delete it, and new tokens will be made") from error

    def save(self) -> None:
        """Write them to the file, if there is one."""
        if self.path is not None:
            facts = {"tokens": self.tokens, "secrets": self.secrets, "app": self.app}
            write_private(self.path, json.dumps(facts, indent=1))
