"""Managers on a real Postgres, on both sides of the engine's harness."""

from __future__ import annotations

import itertools
from typing import Any, Self

from lakebase import AsyncLakebasePoolManager, LakebasePoolManager, UserIdentity
from tests.dropin.parts import wait

_numbers = itertools.count(1)


def users(lake: Any, count: int) -> list[str]:
    """New users with native passwords: their pools need no mint."""
    names = [f"manager{next(_numbers)}@corp.example" for _ in range(count)]
    for name in names:
        lake.add_password_role(name, f"password of {name}")
    return names


def identity(lake: Any, name: str | None = None) -> UserIdentity:
    """A user with a workspace token; a new token on each call."""
    name = name or f"manager{next(_numbers)}@corp.example"
    return UserIdentity(name, lake.add_user(name))


class Managers:
    """Makes managers on one side, and closes them."""

    def __init__(self, side: Any, lake: Any) -> None:
        self.side = side
        self.lake = lake
        self.kind = LakebasePoolManager if side.name == "threads" else AsyncLakebasePoolManager
        self.made: list[Any] = []

    def make(self, base: dict[str, Any] | None = None, **options: Any) -> Any:
        config = {
            "host": self.lake.host,
            "port": self.lake.port,
            "database": self.lake.database,
            "endpoint": self.lake.endpoint,
            "workspace_url": self.lake.workspace_url,
            "ssl_mode": "verify-full",
            "ssl_root_cert": str(self.lake.ca_file),
            **(base or {}),
        }
        manager = self.kind(config, **options)
        self.made.append(manager)
        return manager

    def pool(self, manager: Any, name: str, **config: Any) -> Any:
        """The pool of one of `users`."""
        return manager.get_pool(name, {"user": name, "password": f"password of {name}", **config})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for manager in self.made:
            await wait(manager.close_all())
