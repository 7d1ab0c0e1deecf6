"""
The gateway: TLS, tokens as passwords, and faults, in front of a Postgres that knows of none of these.

A connection passes through `_serve` once, message by message, and is then
copied between two transports without being looked at again.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from ..stats import Counters
from .compute import Compute, WhileWaking
from .faults import GatewayFaults
from .login import STARTING_UP, Greeting, Login, Refusal
from .wire import Wire, error_response, message

if TYPE_CHECKING:
    import ssl

    from ..faults import Fault
    from ..postgres import Address, LoginQueries
    from ..workspace import Issuer
    from .listener import Listener

__all__ = ["Gateway", "Route"]

_DROP_TIMEOUT = 5.0
_CANCEL_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 2.0


@dataclass(eq=False)
class Route:
    """
    An address that clients connect to, and the server behind it.

    Args:
        name: For messages.
        listener: The address for clients.
        backend: Postgres, or a pooler in front of it.
        is_pooled: Whether the backend is the pooler, which accepts native passwords only.
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
    route: Route
    pid_and_key: bytes = b""

    @property
    def pid(self) -> int:
        """Of its server process; 0 before it is known."""
        return int.from_bytes(self.pid_and_key[:4], "big")

    def live_wires(self) -> list[Wire]:
        """Both sides, without those that are lost."""
        return [wire for wire in (self.wire, self.wire.peer) if wire is not None and not wire.lost]


class Gateway:
    """
    Passes clients on to Postgres. Everything but the constructor runs on the loop.

    Args:
        issuer: Says whether a password is a valid credential.
        queries: Answers questions about roles and sessions.
        tls: The server's side of TLS.
        run: Runs a coroutine on the loop, for callers in other threads.
    """

    def __init__(
        self,
        issuer: Issuer,
        queries: LoginQueries,
        tls: ssl.SSLContext,
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._queries = queries
        self._login = Login(issuer, queries, tls)
        self._routes: list[Route] = []
        self._sessions: set[_Session] = set()
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._last_end = -math.inf
        self.faults: GatewayFaults = GatewayFaults(run, self.apply)
        self.compute: Compute = Compute(lambda: self._spawn(self.apply()))
        self.counters: Counters = Counters()

    # Routes

    async def open(self, route: Route) -> None:
        """Accept clients on this route."""
        self._routes.append(route)
        await self._listen(route)

    async def close(self) -> None:
        """Close the routes and drop all connections."""
        for route in self._routes:
            route.listener.close()
        self._routes.clear()
        for task in list(self._tasks):
            task.cancel()
        for wire in list(self._wires):
            wire.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.wait_for(self.wait_until(lambda: not self._wires), _CLOSE_TIMEOUT)
        except TimeoutError:
            pass

    async def apply(self) -> None:
        """Bring the listeners and the sessions in line with the faults and the compute's state."""
        is_stalled = self.faults.find("stall") is not None
        for session in self._sessions:
            for wire in session.live_wires():
                wire.stall(is_stalled)
        for route in self._routes:
            if self.faults.find("refused") or self.compute.is_unreachable:
                await route.listener.shut()
            else:
                await self._listen(route)
        self._check_conditions()

    async def _listen(self, route: Route) -> None:
        await route.listener.open(lambda: Wire(lambda wire: self._begin(route, wire), self._forget))

    def _begin(self, route: Route, wire: Wire) -> None:
        self._wires.add(wire)
        sock = wire.transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._spawn(self._serve(route, wire))

    def _forget(self, wire: Wire) -> None:
        self._wires.discard(wire)
        self._check_conditions()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # One connection

    async def _serve(self, route: Route, wire: Wire) -> None:
        user = ""
        try:
            await self._suffer(self.faults.strike("reset", "delay", "hang"), wire)
            greeting = await self._login.greet(wire)
            if greeting.is_cancellation:
                await self._cancel(route, greeting)
                return
            user = greeting.user
            await self._suffer(self.faults.strike("reset", "delay", "hang", user=user, named=True), wire)
            await self._wake_compute(wire)
            fault = self.faults.strike("error", user=user)
            if fault is not None:
                raise Refusal(fault.code, fault.message.replace("{user}", user))
            await self._login.check_password(wire, user, is_pooled=route.is_pooled)
            await self._connect(route, wire, greeting)
        except Refusal as refusal:
            self.counters.add_refusal(user or refusal.user)
            wire.write(error_response(refusal.code, refusal.text))
            wire.close()
        except (OSError, TimeoutError):
            wire.abort()  # the client went away, or sent nothing for a minute
        finally:
            if wire.peer is None and not wire.lost:
                wire.close()
            self._check_conditions()

    async def _suffer(self, fault: Fault | None, wire: Wire) -> None:
        if fault is None:
            return
        if fault.kind == "reset":
            raise ConnectionResetError
        await fault.hold()
        if wire.lost:
            raise ConnectionResetError

    async def _cancel(self, route: Route, greeting: Greeting) -> None:
        """Pass a request on to the backend if it names an open session of this route, with that session's own key."""
        named = any(
            session.route is route and hmac.compare_digest(session.pid_and_key, greeting.body)
            for session in self._sessions
        )
        if not named:
            return  # without a word, as Postgres does
        backend = await self._dial(route.backend)
        try:
            backend.write(greeting.packet)
            # The server closes the connection when it has sent the signal, and the client waits for that.
            async with asyncio.timeout(_CANCEL_TIMEOUT):
                await backend.read_to_end()
        finally:
            backend.close()

    async def _wake_compute(self, wire: Wire) -> None:
        if self.compute.wake():
            return
        if self.compute.while_waking == "refused":
            await self.apply()  # the next connection is refused
            raise ConnectionResetError
        if self.compute.while_waking == "57P03":
            raise Refusal(*STARTING_UP)
        await self.compute.wait_until_active()
        if wire.lost:
            raise ConnectionResetError

    async def _dial(self, address: Address) -> Wire:
        loop = asyncio.get_running_loop()
        path = address.socket_path
        if path is not None:
            _, wire = await loop.create_unix_connection(lambda: Wire(self._wires.add, self._forget), path)
        else:
            _, wire = await loop.create_connection(
                lambda: Wire(self._wires.add, self._forget), address.host, address.port
            )
        return wire

    async def _connect(self, route: Route, wire: Wire, greeting: Greeting) -> None:
        """Log in at the backend as the client's role, which the backend trusts, and join the two connections."""
        user = greeting.user
        packet = greeting.packet_with(route.settings)
        try:
            backend = await self._dial(route.backend)
        except OSError as error:
            raise Refusal(*STARTING_UP) from error
        session = _Session(user, wire, route)
        try:
            backend.write(packet)
            while True:
                kind, body = await backend.read_message()
                if kind == b"Z" and self.compute.state != "ACTIVE":
                    raise Refusal(*STARTING_UP)  # the compute was suspended during the login
                wire.write(message(kind, body))
                if kind == b"K":
                    session.pid_and_key = body
                elif kind == b"E":
                    self.counters.add_refusal(user)
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

        def end_session(wire: Wire) -> None:
            self._sessions.discard(session)
            self.counters.remove_connection(session.user)
            self._last_end = asyncio.get_running_loop().time()
            self._forget(wire)

        wire.on_lost = end_session
        self._sessions.add(session)
        self.counters.add_connection(session.user)
        wire.join(backend)
        if self.faults.find("stall"):
            wire.stall(True)
            backend.stall(True)

    # All connections

    async def suspend(self, wake_after: float | None, while_waking: WhileWaking) -> None:
        """Let the compute go idle, which ends every session."""
        self.compute.suspend(wake_after, while_waking)
        await self.apply()
        await self.drop(None, politely=True)
        try:
            await self._queries.terminate_all()
        except psycopg.OperationalError:
            pass  # there is no server, and so there are no sessions

    async def scale_to_zero(self, timeout: float, wake_after: float | None, while_waking: WhileWaking) -> None:
        """Suspend the compute each time that no client has run a statement for `timeout` seconds. Never returns."""
        self._last_end = asyncio.get_running_loop().time()
        while True:
            await self.compute.wait_until_idle_for(timeout, self._idle_seconds)
            await self.suspend(wake_after, while_waking)

    async def _idle_seconds(self) -> float:
        if any(not session.wire.lost for session in self._sessions):
            try:
                idle = await self._queries.idle_seconds()
            except psycopg.OperationalError:
                return 0.0
            if idle is not None:
                return idle
        return asyncio.get_running_loop().time() - self._last_end

    async def resume(self) -> None:
        """Make the compute active at once."""
        self.compute.resume()
        await self.apply()

    async def drop(self, user: str | None, *, politely: bool) -> int:
        """End the sessions of a role or of all, and return how many: with Postgres' own message, or without any."""
        dropped = [session for session in self._sessions if user is None or session.user == user]
        if politely:
            # A pooler's clients have no server process of their own.
            await self._terminate(session for session in dropped if not session.route.is_pooled)
        for session in dropped:
            for wire in session.live_wires():
                wire.abort()
        await self.wait_until(lambda: self._sessions.isdisjoint(dropped))
        return len(dropped)

    async def _terminate(self, sessions: Iterable[_Session]) -> None:
        direct = list(sessions)
        try:
            await self._queries.terminate([session.pid for session in direct])
            ended = self.wait_until(lambda: all(session.wire.lost for session in direct))
            await asyncio.wait_for(ended, _DROP_TIMEOUT)
        except (psycopg.OperationalError, TimeoutError):
            pass

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; it is checked when a connection begins, ends or is refused."""
        if condition():
            return
        future = asyncio.get_running_loop().create_future()
        self._conditions.append((condition, future))
        await future

    def _check_conditions(self) -> None:
        waiting, self._conditions = self._conditions, []
        for condition, future in waiting:
            if future.done():
                continue
            if condition():
                future.set_result(None)
            else:
                self._conditions.append((condition, future))
