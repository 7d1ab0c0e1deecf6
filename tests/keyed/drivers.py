"""Keyed pools for the scenarios of `tests.contract.harness`."""

from __future__ import annotations

from typing import Any

from pooling import AsyncKeyedPoolingService, KeyedPoolingService
from tests.contract.harness import LIMIT, PoolDriver


class KeyedPoolDriver(PoolDriver):
    """A keyed pool's methods, all of them awaitable on both sides."""

    @property
    def size(self) -> int:
        return self.service.stats().size

    @property
    def pending(self) -> int:
        return self.service.stats().pending

    def of(self, key: Any) -> PoolDriver:
        """The driver of the key's pool."""
        return PoolDriver(self.side, self.service.pool(key))


def keyed(side: Any, workshop: Any = None, **options: Any) -> KeyedPoolDriver:
    """A keyed pool whose resources all come from one workshop."""
    if workshop is not None:
        side.workshops.append(workshop)
    options.setdefault("timeout", LIMIT)
    kind = KeyedPoolingService if side.name == "threads" else AsyncKeyedPoolingService
    factory = object if workshop is None else workshop.factory
    driver = KeyedPoolDriver(side, kind(options.pop("factory_for_key", lambda key: factory), **options))
    side.drivers.append(driver)
    return driver
