"""Messages of a pool of connections speak of connections."""

from __future__ import annotations

import pytest

from lakebase import create_lakebase_pool
from lakebase.local import LocalLakebase
from pooling import PoolFactory, PoolingService, PoolTimeoutError, ReleaseError


def test_a_timeout_speaks_of_connections(lakebase_local: LocalLakebase) -> None:
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as pool, pool.connection():
        with pytest.raises(PoolTimeoutError, match=r"no connection within timeout=0\.0 s") as caught:
            pool.getconn(timeout=0.0)
    assert "resource" not in str(caught.value)


def test_a_second_return_speaks_of_connections(lakebase_local: LocalLakebase) -> None:
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as pool:
        connection = pool.getconn()
        pool.putconn(connection)
        connection._pool = pool
        with pytest.raises(ValueError, match="Give a connection back once; `connection\\(\\)` does"):
            pool.putconn(connection)


def test_a_factory_names_what_it_makes() -> None:
    class Browsers(PoolFactory[object]):
        noun = "browser"

        def create(self) -> object:
            return object()

    with PoolingService(Browsers(), max_size=1) as pool:
        browser = pool.acquire()
        with pytest.raises(PoolTimeoutError, match="no browser within"):
            pool.acquire(timeout=0.0)
        pool.release(browser)
        with pytest.raises(ReleaseError, match="Give a browser back once"):
            pool.release(browser)
