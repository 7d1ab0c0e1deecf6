"""A port that stays reserved for this process, whether anything listens on it or not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from ..fork import close_in_forked_children

__all__ = ["Listener"]

_BACKLOG = 1024


class Listener:
    """
    Accepts connections on an address while it is open; while it is shut,
    clients are refused and the port stays reserved.

    Args:
        host: An address of this machine.
        port: 0 takes a free one.

    Raises:
        OSError: The port is taken, perhaps by another local Lakebase that does not listen now, or not allowed.
    """

    def __init__(self, host: str, port: int) -> None:
        self._holder = _reserve(host, port)
        self.host: str = host
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None
        # Opening and shutting take several turns of the loop: two at once could leave a server that nothing refers to.
        self._turn = asyncio.Lock()
        close_in_forked_children(self)

    async def open(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Accept clients; each gets its own protocol."""
        async with self._turn:
            if self._server is None:
                sock = _bind(self.host, self.port)
                loop = asyncio.get_running_loop()
                # Assigned before it listens, so that `close` finds it at any moment.
                self._server = await loop.create_server(protocol, sock=sock, backlog=_BACKLOG, start_serving=False)
                await self._server.start_serving()

    async def shut(self) -> None:
        """Refuse clients from now on; open connections stay."""
        async with self._turn:
            server = self._server
            if server is None:
                return
            # A client that is being accepted while the server closes would leave an incomplete transport. So stop
            # accepting, give those that are being accepted time to complete, and close then.
            loop = asyncio.get_running_loop()
            for sock in server.sockets:
                loop.remove_reader(sock.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            server.close()
            self._server = None

    def close(self) -> None:
        """Refuse clients and give the port back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._holder.close()

    def descriptors(self) -> list[int]:
        """The file descriptors of its open sockets."""
        serving = self._server.sockets if self._server is not None else ()
        return [sock.fileno() for sock in (self._holder, *serving) if sock.fileno() >= 0]


def _reserve(host: str, port: int) -> socket.socket:
    """
    A socket that is bound and never listens: it reserves the port and gets no connection.

    What listens beside it shares the port with it (`SO_REUSEPORT`), and so could every other process of this user, such
    as another local Lakebase, which would get half of the clients. So the port is first taken by a socket that shares
    it with no other and listens, which only one can. And the reserving socket does not share the port with sockets that
    are bound later and set nothing but `SO_REUSEADDR`, as this first socket does.
    """
    with _bind(host, port, is_shared=False) as first:
        first.listen(0)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder = _bind(host, first.getsockname()[1])
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return holder


def _bind(host: str, port: int, *, is_shared: bool = True) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
