"""An app whose workers share a port, with the metrics of all workers: WSGI as `wsgi`, ASGI as `asgi`."""

import os

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from pooling import PoolingService
from pooling.telemetry.prometheus import PoolCollector

PoolCollector(interval=0.05)
pool = PoolingService(object, max_size=3, name="shared")


def answer(path):
    if path == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)
    with pool.lease():
        return str(os.getpid()).encode()


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
