"""One side of a proxied connection: read message by message during the login, then copied to the other side."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

__all__ = ["CANCEL_REQUEST", "GSSENC_REQUEST", "SSL_REQUEST", "Wire", "error_response", "message", "startup_packet"]

# https://www.postgresql.org/docs/current/protocol-message-formats.html
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102

# Bytes that wait to be read. No message of a login is longer; asyncio hands over a quarter of this at a time.
_MOST_UNREAD = 1_048_576


def message(kind: bytes, body: bytes) -> bytes:
    """A protocol message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def error_response(code: str, text: str, severity: str = "FATAL") -> bytes:
    """An ErrorResponse."""
    fields = (("S", severity), ("V", severity), ("C", code), ("M", text))
    return message(b"E", b"".join(key.encode() + value.encode() + b"\0" for key, value in fields) + b"\0")


def startup_packet(code: int, parameters: Mapping[str, str]) -> bytes:
    """A StartupMessage of that protocol version."""
    body = b"".join(key.encode() + b"\0" + value.encode() + b"\0" for key, value in parameters.items())
    return struct.pack("!II", len(body) + 9, code) + body + b"\0"


class Wire(asyncio.Protocol):
    """
    One connection of the gateway. During the login, `read` returns bytes on
    request; after `join`, what arrives is written to the other wire, with
    backpressure in the opposite direction.

    When one of two joined wires is lost, the other sends what it still has to send, and closes.
    """

    def __init__(
        self, on_made: Callable[[Wire], None] | None = None, on_lost: Callable[[Wire], None] | None = None
    ) -> None:
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.peer: Wire | None = None
        self.lost: bool = False
        self._on_made = on_made
        self.on_lost = on_lost
        self._buffer = bytearray()
        self._arrived: asyncio.Future[None] | None = None
        self._stalled = False
        self._closed = False
        self._full = False

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; again with the TLS transport, once TLS is in place."""
        first = self.transport is None
        self.transport = cast("asyncio.Transport", transport)
        if first and self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes until `read` asks for them; drop a client that sends more than a login has."""
        self._buffer += data
        if len(self._buffer) > _MOST_UNREAD:
            self.abort()
        self._wake()

    def eof_received(self) -> None:
        """Close: the protocol has no half-open connections."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other wire too."""
        self.lost = True
        self._wake()
        if self.peer is not None:
            self.peer.close()
        if self.on_lost is not None:
            self.on_lost(self)

    def pause_writing(self) -> None:
        """Have the other wire stop reading: this one's buffer is full."""
        self._full = True
        if self.peer is not None:
            self.peer.regulate()

    def resume_writing(self) -> None:
        """Have the other wire read again."""
        self._full = False
        if self.peer is not None:
            self.peer.regulate()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # The login

    @property
    def has_unread(self) -> bool:
        """Whether bytes have arrived that were not read yet."""
        return bool(self._buffer)

    async def read(self, size: int) -> bytes:
        """
        Exactly `size` bytes.

        Raises:
            ConnectionResetError: The connection was lost before.
        """
        while len(self._buffer) < size:
            if self.lost:
                raise ConnectionResetError
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def read_startup(self, limit: int = 10_000) -> tuple[int, bytes]:
        """The code and body of a packet without a type: the first one, or one that asks for TLS or a cancellation."""
        size, code = struct.unpack("!II", await self.read(8))
        if not 8 <= size <= limit:
            raise ConnectionResetError("no Postgres client")
        return code, await self.read(size - 8)

    async def read_message(self, limit: int = 65_536) -> tuple[bytes, bytes]:
        """The type and body of a message."""
        kind, size = struct.unpack("!cI", await self.read(5))
        if not 4 <= size <= limit:
            raise ConnectionResetError("message too long for a login")
        return kind, await self.read(size - 4)

    async def read_to_end(self) -> None:
        """Return when the other end has closed the connection."""
        while not self.lost:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    def write(self, data: bytes) -> None:
        """Send, as soon as the other end accepts it."""
        if not self._closed and not self.lost:
            self.transport.write(data)

    # After the login

    def join(self, other: Wire) -> None:
        """Copy everything between the two from now on."""
        for one, two in ((self, other), (other, self)):
            one.peer = two
            if one._buffer:
                two.transport.write(bytes(one._buffer))
                one._buffer.clear()
            # The transport itself instead of a method that looks up the peer: each message costs this one call.
            cast("Any", one).data_received = two.transport.write
        for one, two in ((self, other), (other, self)):
            if one.lost:
                two.close()

    def stall(self, on: bool) -> None:
        """Stop reading, or go on."""
        self._stalled = on
        self.regulate()

    def regulate(self) -> None:
        """Read, unless it is stalled or the other wire is full."""
        if self._closed or self.lost:
            return
        if self._stalled or (self.peer is not None and self.peer._full):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # Each transport is closed once: at a second `close`, asyncio detaches the protocol of a TLS transport.

    def close(self) -> None:
        """Close the connection, after sending what is left."""
        if not self._closed:
            self._closed = True
            self.transport.close()

    def abort(self) -> None:
        """Drop the connection, without sending what is left."""
        if not self.lost:
            self._closed = True
            self.transport.abort()
