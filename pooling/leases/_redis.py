"""Leases in Redis or Valkey: one hash for each budget, and a channel for each process."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..extras import install_command
from ._store import DocumentSession, LeaseSession, LeaseStore

if TYPE_CHECKING:
    from redis import Redis

#: Replaces the book if its version is still the one that was read, and rings.
SWAP = """
local version = redis.call('HGET', KEYS[1], 'version')
if (version or '') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'book', ARGV[3])
for number = 4, #ARGV do
    redis.call('PUBLISH', ARGV[number], '')
end
return 1
"""

TIMEOUT = 5.0  # seconds for each answer of a server that is given by its URL


class RedisLeases(LeaseStore):
    """
    Leases in Redis 5 or newer, or Valkey: for replicas on several hosts.

    One key for each budget; the server's clock counts. Each process listens on one connection while it has places.
    A server that has just been started without data gives no places for `lease_ttl`, except to processes that still
    use some: it may have lost who has them. The limit may be exceeded for a while if the key is deleted or evicted, or
    after a failover to a replica that missed the last writes.

    Args:
        client: A `redis.Redis` with a `socket_timeout`, or a URL for one. With a URL it can be pickled, which then has
            the URL's password in it.
        prefix: Begins the key and the channels.

    Raises:
        ConfigurationError: The client would wait for an answer without end, or is for asyncio; the URL is none; or
            redis-py is not installed.
    """

    def __init__(self, client: Redis | str, *, prefix: str = "pooling:leases") -> None:
        self._url = client if isinstance(client, str) else None
        if isinstance(client, str):
            try:
                from redis import Redis
            except ImportError as error:
                raise ConfigurationError(
                    f"RedisLeases needs redis-py, which is not installed: {install_command('redis')}",
                    field="client",
                ) from error
            try:
                client = Redis.from_url(client, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
            except ValueError:  # whose text may have a part of the password
                raise ConfigurationError(
                    "client is a text, but no URL of a server: expected one like 'redis://host:6379/0'", field="client"
                ) from None
        pool: Any = getattr(client, "connection_pool", None)
        if pool is None or "asyncio" in type(client).__module__:
            raise ConfigurationError(
                f"client of type {type(client).__name__}: expected a redis.Redis or a URL; also for asyncio pools, "
                "since a thread of its own uses it",
                field="client",
            )
        if pool.connection_kwargs.get("socket_timeout", TIMEOUT) is None:
            raise ConfigurationError(
                "the client has socket_timeout=None: a server that hangs would never be noticed; set a few seconds",
                field="client",
            )
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError(f"prefix={prefix!r}: expected a text that is not empty", field="prefix")
        self._client = client
        self._prefix = prefix

    def open(self, holder: str, budget: str) -> LeaseSession:
        return RedisSession(self._client, f"{self._prefix}:{budget}", holder)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise ConfigurationError(
                "RedisLeases was given a client, which cannot be sent to another process: give it the server's URL",
                field="client",
            )
        return partial(RedisLeases, prefix=self._prefix), (self._url,)

    def __repr__(self) -> str:
        return f"RedisLeases(prefix={self._prefix!r})"  # the client's own repr may have a password


class RedisSession(DocumentSession):
    """What one process has to do with a Redis server."""

    can_hear = True

    def __init__(self, client: Redis, key: str, holder: str) -> None:
        self._client: Any = client  # not all of its methods have types
        self._key = key
        self._holder = holder
        self._swap = client.register_script(SWAP)
        self._subscription: Any = None

    def _channel(self, holder: str) -> str:
        return f"{self._key}:{holder}"

    def load(self) -> tuple[str | None, str | None, float, float]:
        if self._subscription is None:
            subscription = self._client.pubsub(ignore_subscribe_messages=True)
            subscription.subscribe(self._channel(self._holder))
            self._subscription = subscription
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hmget(self._key, "version", "book")
            pipeline.time()
            (version, book), (seconds, microseconds) = pipeline.execute()
        up = inf if book is not None else float(self._client.info("server").get("uptime_in_seconds", inf))
        return _text(version), _text(book), seconds + microseconds / 1e6, up

    def swap(self, version: str | None, new_version: str, text: str, ring: tuple[str, ...]) -> bool:
        channels = [self._channel(holder) for holder in ring]
        return bool(self._swap(keys=[self._key], args=[version or "", new_version, text, *channels]))

    def bell(self) -> int | None:
        connection = getattr(self._subscription, "connection", None)
        # There is no public name for it. Without it this process is not rung, and looks from time to time.
        socket = getattr(connection, "_sock", None)
        number = -1 if socket is None else int(socket.fileno())
        return number if number >= 0 else None

    def hear(self) -> bool:
        if self._subscription is None:
            return False
        is_rung = False
        try:
            while self._subscription.get_message(timeout=0) is not None:
                is_rung = True
        except Exception:  # noqa: BLE001 - the next claim tells what is wrong, and subscribes again
            self.close()
            return True
        return is_rung

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def abandon(self) -> None:
        self._subscription = None  # the client itself sees that the process forked


def _text(value: Any) -> str | None:
    """What a client returns, decoded or not, as a text."""
    return value.decode() if isinstance(value, bytes) else value
