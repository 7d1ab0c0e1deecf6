"""A port that is this process's for good, whether anything listens on it or not."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable

__all__ = ["Listener"]

_BACKLOG = 1024
_live: weakref.WeakSet[Listener] = weakref.WeakSet()


class Listener:
    """
    Accepts connections on an address while it is open; while it is closed,
    clients are refused and the port stays reserved.

    Args:
        host: An address of this machine.
        port: 0 takes a free one.

    Raises:
        OSError: Somebody has the port, listening or not, another local Lakebase included; or it may not be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self._holder = self._claimed(host, port)
        self.host: str = host
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None
        # Both ways take more than one step of the loop: two that open would leave one server that nobody knows of.
        self._turn = asyncio.Lock()
        _live.add(self)

    @classmethod
    def _claimed(cls, host: str, port: int) -> socket.socket:
        """
        A socket that is bound and never listens: it holds the port while nobody does, and gets no connection.

        What listens beside it shares the port with it (`SO_REUSEPORT`), and so could any other process of this user,
        another local Lakebase for one, which would get half of the clients. So the port is first taken by a socket
        that shares it with nobody and listens, which only one can; and the holder does not share it with those who
        come later and set nothing but `SO_REUSEADDR`, as this first socket does.
        """
        with cls._bound(host, port, is_shared=False) as first:
            first.listen(0)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder = cls._bound(host, first.getsockname()[1])
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            return holder

    @staticmethod
    def _bound(host: str, port: int, *, is_shared: bool = True) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
            sock.bind((host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def open(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Let clients in; each gets a protocol of its own."""
        async with self._turn:
            if self._server is None:
                sock = self._bound(self.host, self.port)
                loop = asyncio.get_running_loop()
                # Known before it listens, so that `close` finds it at any moment.
                self._server = await loop.create_server(protocol, sock=sock, backlog=_BACKLOG, start_serving=False)
                await self._server.start_serving()

    async def shut(self) -> None:
        """Refuse clients from now on; those inside stay."""
        async with self._turn:
            server = self._server
            if server is None:
                return
            # A client that is being let in as the server closes would leave half a transport behind: stop letting in,
            # let those on the threshold pass, and close then.
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

    def sockets(self) -> list[int]:
        """The file descriptors of its sockets."""
        serving = self._server.sockets if self._server is not None else ()
        return [sock.fileno() for sock in (self._holder, *serving)]


def _let_go_in_child() -> None:
    # A forked child that kept the sockets would go on listening when this process has stopped.
    null = os.open(os.devnull, os.O_RDONLY)
    for listener in list(_live):
        for number in listener.sockets():
            if number >= 0:
                os.dup2(null, number)
    os.close(null)
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
