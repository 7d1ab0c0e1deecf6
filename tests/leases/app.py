"""The smallest app with a pool under a shared budget, for ASGI and for WSGI; each answer is the worker's number."""

from __future__ import annotations

import asyncio
import os
import socket
import time

from pooling import AsyncPoolingService, PoolFactory, PoolingService, SharedBudget
from pooling.leases import FileLeases

USE = 0.005  # seconds that a request uses its connection


def connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(os.environ["COUNTER"])))


# Made when the module is imported: with gunicorn's `--preload` that is before the workers are forked.
budget = SharedBudget(int(os.environ["LIMIT"]), FileLeases(os.environ["LEASES"])) if "LEASES" in os.environ else None
factory = PoolFactory.of(connect, destroy=socket.socket.close)
pool = AsyncPoolingService(factory, max_size=100, budget=budget)
thread_pool = PoolingService(
    factory,
    max_size=100,
    budget=SharedBudget(int(os.environ["LIMIT"]), FileLeases(os.environ["LEASES"])) if "LEASES" in os.environ else None,
)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await pool.stop()
        await send({"type": "lifespan.shutdown.complete"})
        return
    async with pool.lease():
        await asyncio.sleep(USE)  # sleeps: the work of a request
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def wsgi(environ, start_response):
    with thread_pool.lease():
        time.sleep(USE)  # sleeps: the work of a request
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
