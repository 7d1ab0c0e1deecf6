"""
A pool of HTTP connections for asyncio: at most so many to one host, kept open between requests.

A connection that the server has closed meanwhile is noticed before it is handed out; one whose request was
cancelled in the middle of an answer is not used again.

    python examples/http_client_pool.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dependency_injector import providers

from pooling import PoolFactory, di


@dataclass
class Answer:
    """What a server said."""

    status: int
    body: bytes


class Connection:
    """One HTTP/1.1 connection; one request at a time."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.reader = reader
        self.writer = writer
        self.is_busy = False
        self.must_close = False

    async def get(self, path: str) -> Answer:
        self.is_busy = True
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        self.must_close = fields.get("connection") == "close"
        self.is_busy = False
        return Answer(int(head[0].split()[1]), body)

    @property
    def is_usable(self) -> bool:
        return not (self.is_busy or self.must_close or self.reader.at_eof() or self.writer.is_closing())


class ConnectionFactory(PoolFactory[Connection]):
    """How the pool opens, checks and closes its connections."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    async def create(self) -> Connection:  # a hook may be a coroutine function
        return Connection(self.host, *await asyncio.open_connection(self.host, self.port))

    def is_alive(self, value: Connection) -> bool:
        return value.is_usable

    def release(self, value: Connection, exc: BaseException | None = None) -> None:
        if not value.is_usable:
            raise ConnectionError("the connection is in the middle of an answer")  # so it is destroyed

    async def destroy(self, value: Connection) -> None:
        value.writer.close()


class Weather:
    """A service that has a connection and knows nothing of pools."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def of(self, city: str) -> str:
        answer = await self.connection.get(f"/{city}")
        return answer.body.decode()


class App(di.Container):
    config = providers.Configuration()
    connections = di.AsyncPool(
        providers.Factory(ConnectionFactory, config.host, config.port),
        max_size=config.connections.as_int(),
        max_idle=60.0,
    )
    connection = di.Pooled(connections)
    weather = di.Factory(Weather, connection)


@di.task(App)
@di.inject
async def weather_in(city: str, weather: Weather = di.Inject[App.weather]) -> str:
    return await weather.of(city)


class Station:
    """A server to talk to, and how many connections it was sent."""

    def __init__(self) -> None:
        self.connections = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if task := asyncio.current_task():
            self.tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                city = head.split()[1].decode().lstrip("/")
                body = f"sunny in {city}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main() -> None:
    station = Station()
    server = await asyncio.start_server(station.serve, "127.0.0.1", 0)
    app = App()
    app.config.from_dict({"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "connections": 3})
    async with server:
        async with app.running():
            cities = [f"city-{number}" for number in range(20)]
            print(*await asyncio.gather(*map(weather_in, cities)), sep="\n")
            print(f"{len(cities)} requests over {station.connections} connections")
        await asyncio.gather(*station.tasks)  # the pool has closed its connections, and the station notices


if __name__ == "__main__":
    asyncio.run(main())
