"""
The gateway: TLS, tokens as passwords, and faults, in front of a Postgres that knows of none of these.

A connection goes through `_admit` once, piece by piece, and is then copied
between two transports without another look.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from ._faults import Fault, Faults
from ._login import STARTING_UP, Greeting, Login, Refusal
from ._scale import Compute, WhileWaking
from ._stats import Counters
from ._wire import Wire, error_response, message

if TYPE_CHECKING:
    import ssl

    from ._control import Inquiry
    from ._listener import Listener
    from ._postgres import Address
    from ._tokens import Issuer

__all__ = ["Door", "Gateway"]

_DROP_PATIENCE = 5.0
_CLOSE_PATIENCE = 2.0


@dataclass(eq=False)
class Door:
    """
    An address that clients connect to, and what is behind it.

    Args:
        listener: The address.
        backend: Postgres, or a pooler before it.
        is_pooled: Whether it is the pooler: that takes native passwords only.
        settings: Startup parameters added to the client's.
    """

    name: str
    listener: Listener
    backend: Address
    is_pooled: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Session:
    user: str
    wire: Wire
    door: Door
    pid: int = 0


class Gateway:
    """
    Lets clients through to Postgres. Everything but the constructor runs on the loop.

    Args:
        issuer: Knows which password is a good token.
        inquiry: Knows the roles.
        tls: The server's certificate.
        run: Runs a coroutine on the loop, for callers elsewhere.
    """

    def __init__(
        self, issuer: Issuer, inquiry: Inquiry, tls: ssl.SSLContext, run: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._inquiry = inquiry
        self._login = Login(issuer, inquiry, tls)
        self._doors: list[Door] = []
        self._sessions: set[_Session] = set()
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._last_went = -math.inf
        self.faults = Faults(run, self.apply)
        self.compute = Compute(lambda: self._spawn(self.apply()))
        self.counters = Counters()

    # Doors

    async def open(self, door: Door) -> None:
        """Let clients in by this door."""
        self._doors.append(door)
        await door.listener.open(lambda: self._arrival(door))

    async def close(self) -> None:
        """Close the doors and drop everybody."""
        for door in self._doors:
            door.listener.close()
        self._doors.clear()
        for task in list(self._tasks):
            task.cancel()
        for wire in list(self._wires):
            wire.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.wait_for(self.until(lambda: not self._wires), _CLOSE_PATIENCE)
        except TimeoutError:
            pass

    def _arrival(self, door: Door) -> Wire:
        return Wire(lambda wire: self._begin(door, wire), self._gone)

    def _gone(self, wire: Wire) -> None:
        self._wires.discard(wire)
        self._look()

    def _begin(self, door: Door, wire: Wire) -> None:
        self._wires.add(wire)
        sock = wire.transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._spawn(self._serve(door, wire))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def apply(self) -> None:
        """Bring the doors and the sessions in line with the faults and the compute's state."""
        stalled = self.faults.has("stall") is not None
        for session in self._sessions:
            for wire in (session.wire, session.wire.peer):
                if wire is not None and not wire.lost:
                    wire.stall(stalled)
        for door in self._doors:
            if self.faults.has("refused") or self.compute.is_unreachable:
                await door.listener.shut()
            else:
                await door.listener.open(lambda door=door: self._arrival(door))  # type: ignore[misc]
        self._look()

    # One connection

    async def _serve(self, door: Door, wire: Wire) -> None:
        user = ""
        try:
            await self._suffer(self.faults.take("reset", "delay", "hang"), wire)
            greeting = await self._login.greet(wire)
            if greeting.is_cancellation:
                await self._cancel(door, greeting.packet)
                return
            user = greeting.user
            await self._suffer(self.faults.take("reset", "delay", "hang", user=user, named=True), wire)
            await self._be_awake(wire)
            fault = self.faults.take("error", user=user)
            if fault is not None:
                raise Refusal(fault.code, fault.message.replace("{user}", user))
            await self._login.check_password(wire, user, is_pooled=door.is_pooled)
            await self._connect(door, wire, greeting)
        except Refusal as refusal:
            self.counters.turned_away(user or refusal.user)
            wire.write(error_response(refusal.code, refusal.text))
            wire.close()
        except (OSError, TimeoutError):
            wire.abort()  # the client went away, or said nothing for a minute
        finally:
            if wire.peer is None and not wire.lost:
                wire.close()
            self._look()

    async def _suffer(self, fault: Fault | None, wire: Wire) -> None:
        if fault is None:
            return
        if fault.kind == "reset":
            raise ConnectionResetError
        await fault.hold()
        if wire.lost:
            raise ConnectionResetError

    async def _cancel(self, door: Door, packet: bytes) -> None:
        backend = await self._dial(door)
        backend.write(packet)
        # The server hangs up when the signal is sent, which is what the client waits for.
        await backend.read_to_end()

    async def _be_awake(self, wire: Wire) -> None:
        if self.compute.knock():
            return
        if self.compute.while_waking == "refused":
            await self.apply()  # the next one finds nobody listening
            raise ConnectionResetError
        if self.compute.while_waking == "57P03":
            raise Refusal(*STARTING_UP)
        await self.compute.active()
        if wire.lost:
            raise ConnectionResetError

    async def _dial(self, door: Door) -> Wire:
        loop = asyncio.get_running_loop()
        path = door.backend.socket_path
        if path is not None:
            _, wire = await loop.create_unix_connection(lambda: Wire(self._wires.add, self._gone), path)
        else:
            host, port = door.backend.host, door.backend.port
            _, wire = await loop.create_connection(lambda: Wire(self._wires.add, self._gone), host, port)
        return wire

    async def _connect(self, door: Door, wire: Wire, greeting: Greeting) -> None:
        """Log in at the backend, as whom it trusts, and hand the client on to it."""
        user = greeting.user
        packet = greeting.packet if not door.settings else greeting.packet_with(door.settings)
        try:
            backend = await self._dial(door)
        except OSError as error:
            raise Refusal(*STARTING_UP) from error
        session = _Session(user, wire, door)
        try:
            backend.write(packet)
            while True:
                kind, body = await backend.read_message()
                if kind == b"Z" and self.compute.state != "ACTIVE":
                    raise Refusal(*STARTING_UP)  # suspended meanwhile: nobody slips through
                wire.write(message(kind, body))
                if kind == b"K":
                    session.pid = struct.unpack_from("!I", body)[0]
                elif kind == b"E":
                    self.counters.turned_away(user)
                    return
                elif kind == b"Z":
                    break
            if wire.lost:
                return
            self._admit(session, backend)
        finally:
            if wire.peer is None:
                backend.close()

    def _admit(self, session: _Session, backend: Wire) -> None:
        wire = session.wire

        def lost(wire: Wire) -> None:
            self._sessions.discard(session)
            self.counters.went(session.user)
            self._last_went = asyncio.get_running_loop().time()
            self._gone(wire)

        wire.on_lost = lost
        self._sessions.add(session)
        self.counters.came(session.user)
        wire.join(backend)
        if self.faults.has("stall"):
            wire.stall(True)
            backend.stall(True)

    # Everybody

    async def suspend(self, wake_after: float | None, while_waking: WhileWaking) -> None:
        """Let the compute go idle, and drop every session with it."""
        self.compute.suspend(wake_after, while_waking)
        await self.apply()
        await self.drop(None, politely=True)
        try:
            await self._inquiry.terminate_all()
        except psycopg.OperationalError:
            pass  # there is no server to have sessions

    async def scale_to_zero(self, timeout: float, wake_after: float | None, while_waking: WhileWaking) -> None:
        """Suspend the compute whenever nobody has run a statement for so many seconds. Never returns."""
        self._last_went = asyncio.get_running_loop().time()
        while True:
            await self.compute.stay_idle_for(timeout, self._idle_seconds)
            await self.suspend(wake_after, while_waking)

    async def _idle_seconds(self) -> float:
        if any(not session.wire.lost for session in self._sessions):
            try:
                idle = await self._inquiry.idle_seconds()
            except psycopg.OperationalError:
                return 0.0
            if idle is not None:
                return idle
        return asyncio.get_running_loop().time() - self._last_went

    async def resume(self) -> None:
        """Have the compute active at once."""
        self.compute.resume()
        await self.apply()

    async def drop(self, user: str | None, *, politely: bool) -> int:
        """End the sessions of a role or of all, and say how many: by Postgres' own message, or without a word."""
        victims = [session for session in self._sessions if user is None or session.user == user]
        if politely:
            # A pooler's clients have no server process of their own.
            direct = [session for session in victims if not session.door.is_pooled]
            try:
                await self._inquiry.terminate([session.pid for session in direct])
                gone = self.until(lambda: all(session.wire.lost for session in direct))
                await asyncio.wait_for(gone, _DROP_PATIENCE)
            except (psycopg.OperationalError, TimeoutError):
                pass
        for session in victims:
            for wire in (session.wire, session.wire.peer):
                if wire is not None and not wire.lost:
                    wire.abort()
        await self.until(lambda: all(session not in self._sessions for session in victims))
        return len(victims)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; it is looked at when a connection comes, goes or is refused."""
        if condition():
            return
        future = asyncio.get_running_loop().create_future()
        self._watchers.append((condition, future))
        await future

    def _look(self) -> None:
        waiting = self._watchers
        self._watchers = []
        for condition, future in waiting:
            if future.done():
                continue
            if condition():
                future.set_result(None)
            else:
                self._watchers.append((condition, future))
