"""The beginning of a connection: TLS, the startup packet, and the password."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from .scram import PasswordCheck
from .wire import CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST, Wire, message, startup_packet

if TYPE_CHECKING:
    import ssl

    from ..postgres import LoginQueries
    from ..workspace import Issuer

__all__ = ["STARTING_UP", "Greeting", "Login", "Refusal"]

#: The error while there is no server to log in at.
STARTING_UP = ("57P03", "the database system is starting up")

# Postgres' own `authentication_timeout`.
_TIMEOUT = 60.0
# Seconds to wait for the client's end of TLS. Postgres does not wait for it at all.
_TLS_SHUTDOWN = 0.2
_CLEARTEXT_PASSWORD = message(b"R", struct.pack("!I", 3))


class Refusal(Exception):  # noqa: N818
    """The client gets this error, and its connection is closed. `user` is its role, if that is known."""

    def __init__(self, code: str, text: str, *, user: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.user = user


@dataclass(frozen=True, slots=True)
class Greeting:
    """
    The first packet of a client: a request to log in, or to cancel a running statement.

    Attributes:
        code: The version of the protocol, or what else is asked for.
        body: The rest of the packet.
        parameters: User, database, and other settings of a session.
    """

    code: int
    body: bytes
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cancellation(self) -> bool:
        """Whether it asks to cancel a statement, and not for a session."""
        return self.code == CANCEL_REQUEST

    @property
    def packet(self) -> bytes:
        """The whole packet, as it came."""
        return struct.pack("!II", len(self.body) + 8, self.code) + self.body

    @property
    def user(self) -> str:
        """The role; empty if there is none."""
        return self.parameters.get("user", "")

    def packet_with(self, settings: Mapping[str, str]) -> bytes:
        """A packet with the parameters as they were understood here, and further ones."""
        return startup_packet(self.code, {**self.parameters, **settings})


def _parse_parameters(body: bytes) -> dict[str, str]:
    """
    The parameters of a startup packet.

    Raises:
        Refusal: They can be read in more than one way, so that the backend might see another user.
    """
    # https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE
    try:
        words = body.decode().split("\0")
    except UnicodeDecodeError as error:
        raise Refusal("22021", 'invalid byte sequence for encoding "UTF8" in startup packet') from error
    names, values = words[:-2:2], words[1:-2:2]
    if words[-2:] != ["", ""] or len(names) != len(values) or "" in names:
        raise Refusal("08P01", "invalid startup packet layout: expected terminator as last byte")
    if len(set(names)) != len(names):
        raise Refusal("08P01", "invalid startup packet: a parameter is given twice")
    return dict(zip(names, values, strict=True))


class Login:
    """
    Checks clients before they reach Postgres. Used on the loop.

    Args:
        issuer: Says whether a password is a valid credential.
        queries: Answers questions about roles.
        tls: The server's side of TLS.
        timeout: Seconds for the client to send its first packet, and then its password.
    """

    def __init__(
        self, issuer: Issuer, queries: LoginQueries, tls: ssl.SSLContext, *, timeout: float = _TIMEOUT
    ) -> None:
        self._timeout = timeout
        self._issuer = issuer
        self._queries = queries
        self._tls = tls
        self._passwords = PasswordCheck()

    async def greet(self, wire: Wire) -> Greeting:
        """
        The client's first packet, received after TLS is in place.

        Raises:
            Refusal: The client asks for something that is not offered, such as a plain connection.
            OSError: The client went away, or is no Postgres client.
            TimeoutError: The client sent nothing for a minute.
        """
        async with asyncio.timeout(self._timeout):
            encrypted = refused_gss = False
            while True:
                code, body = await wire.read_startup()
                if code == GSSENC_REQUEST and not refused_gss:
                    wire.write(b"N")
                    refused_gss = True
                elif code == SSL_REQUEST and not encrypted:
                    if wire.has_unread:
                        raise ConnectionResetError("sent before TLS")  # CVE-2021-23214: it was not encrypted
                    await self._start_tls(wire)
                    encrypted = True
                else:
                    break
        if code == CANCEL_REQUEST:
            return Greeting(code, body)
        if code >> 16 != 3:
            wanted = f"{code >> 16}.{code & 0xFFFF}"
            raise Refusal("0A000", f"unsupported frontend protocol {wanted}: server supports 3.0 to 3.2")
        greeting = Greeting(code, body, _parse_parameters(body))
        if not encrypted:
            insecure = "connection is insecure (try using `sslmode=require`)"
            raise Refusal("28000", insecure, user=greeting.user)
        if not greeting.user:
            raise Refusal("28000", "no PostgreSQL user name specified in startup packet")
        return greeting

    async def _start_tls(self, wire: Wire) -> None:
        # Stop reading before the answer goes out: the client's next bytes are for TLS, which is not in place yet.
        wire.transport.pause_reading()
        wire.write(b"S")
        transport = await asyncio.get_running_loop().start_tls(
            wire.transport, wire, self._tls, server_side=True, ssl_shutdown_timeout=_TLS_SHUTDOWN
        )
        if transport is None:
            raise ConnectionResetError
        wire.transport = transport

    async def check_password(self, wire: Wire, user: str, *, is_pooled: bool) -> None:
        """
        Ask the client for the password of that role, and return if it is right.

        Args:
            wire: The client.
            user: The role.
            is_pooled: Whether the login is at the pooler, which accepts native passwords only.

        Raises:
            Refusal: The password is wrong.
        """
        async with asyncio.timeout(self._timeout):
            wire.write(_CLEARTEXT_PASSWORD)
            kind, body = await wire.read_message()
        if kind != b"p":
            raise Refusal("08P01", f"expected password response, got message type {kind[0]}")
        password = body.rstrip(b"\0").decode("utf-8", "replace")
        try:
            facts = await self._queries.find_role(user)
        except psycopg.OperationalError as error:
            raise Refusal(*STARTING_UP) from error
        verifier = facts.password_verifier if facts is not None else None
        if verifier is not None and self._passwords.matches(verifier, password):
            return
        if is_pooled:
            raise Refusal("28P01", "SASL authentication failed")
        if facts is not None and facts.is_identity and self._issuer.is_valid(user, password):
            return
        raise Refusal("28P01", f'password authentication failed for user "{user}"')
