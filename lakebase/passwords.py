"""
Passwords for new connections: fixed, minted, or fetched.

A password is minted once for all callers that wait for it (a single flight), on a background thread: a caller that
gives up, is cancelled, or belongs to an event loop that ends does not disturb the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn
from weakref import WeakKeyDictionary

from pooling import SingleFlight, TaskFlight, telemetry
from pooling.locks import make_lock

from ._credential import CachedCredential, DatabaseCredential, checked_credential, password_in
from ._secrets import WithoutLocals, forget_locals
from ._telemetry import MINT
from ._workers import run_alone
from .errors import ConfigurationError, CredentialError

__all__ = [
    "AsyncCallablePassword",
    "CredentialSource",
    "DatabaseCredential",
    "MintedPassword",
    "StaticPassword",
]

#: A token is not handed out in the last seconds of its life: a login takes a while.
EXPIRY_MARGIN = 120.0
#: And the first caller this long before that has it replaced in the background.
REFRESH_AHEAD = 480.0
#: Seconds that a caller waits for a mint, all its attempts included.
MINT_TIMEOUT = 30.0
_BACKOFF = 0.25
# A workspace that wants to be left alone for longer is asked by the next caller.
_LONGEST_PAUSE = 5.0

logger: logging.Logger = logging.getLogger("lakebase")
# A failure that took longer came after the SDK's own retries.
_QUICK = 2.0
_REFRESH_AGAIN = 30.0


class CredentialSource(ABC):
    """
    Passwords for new connections, one identity's.

    May be shared by any number of threads and event loops.
    """

    __slots__ = ("__weakref__",)

    @abstractmethod
    def password(self, timeout: float | None = None) -> str:
        """
        The password for a connection that is made now.

        Blocks while one is minted. Giving up does not stop the minting, which serves the next caller.

        Args:
            timeout: Seconds to wait; `None` is the source's own limit.

        Raises:
            CredentialError: None could be had.
        """

    @abstractmethod
    async def apassword(self) -> str:
        """Like `password()`, suspending. Cancelling it does not stop the minting."""

    def invalidate(self, password: str) -> bool:
        """
        Never hand this one out again: a login with it was rejected.

        Returns whether the next `password()` may be another one, so that the
        login is worth another attempt. A password that has been replaced meanwhile stays replaced, so that only the
        first of many rejected logins causes a mint.
        """
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class StaticPassword(CredentialSource):
    """A native password that does not change."""

    __slots__ = ("_password",)

    def __init__(self, password: str) -> None:
        self._password = password

    def password(self, timeout: float | None = None) -> str:  # noqa: D102
        return self._password

    async def apassword(self) -> str:  # noqa: D102
        return self._password


class MintedPassword(CredentialSource):
    """
    Passwords from a function that blocks: the workspace's credentials, or a plain password callable.

    A `DatabaseCredential` is kept until `margin` before it expires, and replaced
    in the background when it is asked for within `refresh_ahead` of that. A
    string is used for the callers that waited for it, and asked for anew
    by the next.

    Args:
        mint: Runs on a background thread; not twice at once, unless the first is long overdue, or what it brings is not
            to be trusted since a login has been rejected meanwhile.
        name: What it is for, in errors: `str()` of it.
        margin: Seconds.
        refresh_ahead: Seconds, before the margin.
        timeout: Seconds that a caller waits at most.
        attempts: Calls of `mint` for failures that may pass and come quickly, with a growing pause between.
        longest: Seconds that a credential is believed to live at most, whatever it says.
        after: Called once, on the same thread, when the first mint has succeeded and its callers have been served.
        begin: Has a function run on a background thread, by default one of its own.
        clock: Monotonic seconds.

    Attributes:
        mints: How often `mint` succeeded.
    """

    __slots__ = (
        "_after",
        "_attempts",
        "_begin",
        "_begun",
        "_cached",
        "_clock",
        "_distrusted",
        "_flight",
        "_lock",
        "_mint",
        "_name",
        "_patience",
        "_pid",
        "_timeout",
        "mints",
    )

    def __init__(
        self,
        mint: Callable[[], str | DatabaseCredential],
        *,
        name: object = "password callable",
        margin: float = EXPIRY_MARGIN,
        refresh_ahead: float = REFRESH_AHEAD,
        timeout: float = MINT_TIMEOUT,
        attempts: int = 1,
        longest: float = float("inf"),
        after: Callable[[], object] | None = None,
        begin: Callable[[Callable[[], object]], object] = run_alone,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mint = mint
        self._name = name
        self._timeout = timeout
        self._attempts = attempts
        self._after = after
        self._begin = begin
        self._lock = make_lock()
        self._cached = CachedCredential(margin=margin, ahead=refresh_ahead, longest=longest, clock=clock)
        self._clock = clock
        self._flight: SingleFlight[str] | None = None
        self._distrusted: SingleFlight[str] | None = None
        self._begun = 0.0
        self._patience = timeout
        self._pid = os.getpid()
        self.mints: int = 0

    def password(self, timeout: float | None = None) -> str:  # noqa: D102
        got = self._token_or_flight()
        if isinstance(got, str):
            return got
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        got.wait(seconds)
        return _outcome(got) if got.is_over else self._give_up(seconds)

    async def apassword(self) -> str:  # noqa: D102
        got = self._token_or_flight()
        if isinstance(got, str):
            return got
        try:
            async with asyncio.timeout(self._timeout):
                await got.wait_async()
        except TimeoutError:
            return self._give_up(self._timeout)
        return _outcome(got)

    def _give_up(self, seconds: float) -> NoReturn:
        raise CredentialError(
            f"{self._name}: no credential within {seconds:.3g} s. It is still being waited for, and serves later "
            "connections; if this is usual, the workspace cannot be reached from here.",
            is_transient=True,
            step="creating",
        ) from None

    def invalidate(self, password: str) -> bool:  # noqa: D102
        with self._lock:
            if self._cached.drop(password) and self._flight is not None:
                # It began before this rejection: what it brings may be as old, and be rejected, too.
                self._distrusted = self._flight
                self._flight = None
        return True

    def _token_or_flight(self) -> str | SingleFlight[str]:
        """The token at hand, or else the flight to wait for; begins one if the next token is due."""
        if self._pid != os.getpid():
            # After a fork: the thread of a flight is the parent's, and a thread of the parent may have held the lock.
            self._lock = make_lock()
            self._flight = None
            self._patience = self._timeout
            self._pid = os.getpid()
        begun: SingleFlight[str] | None = None
        with self._lock:
            token, is_due = self._cached.look()
            flight = self._flight
            if flight is not None and self._clock() - self._begun > self._patience:
                # The SDK sets no time limit on its OAuth requests, and one without an answer never ends. The thread
                # is left behind; waiting longer before the next keeps their number small.
                self._patience *= 2
                flight = None
            if is_due and flight is None:
                self._begun = self._clock()
                flight = self._flight = begun = SingleFlight()
        if begun is not None:
            try:
                self._begin(telemetry.carry(partial(self._fly, begun)))
            except BaseException as error:
                # Too many threads, or an interrupt: callers that joined must not wait for a thread that never began.
                self._fail(begun, error)
                raise
        if token is not None:
            return token
        assert flight is not None
        return flight

    def _fly(self, flight: SingleFlight[str]) -> None:
        try:
            got = self._minted()
        except BaseException as error:  # noqa: BLE001 - it is the waiting callers'
            self._fail(flight, error)
            return
        self._succeed(flight, got)
        if (after := self._after) is not None:
            self._after = None
            after()

    def _minted(self) -> str | DatabaseCredential:
        attempt = 0
        while True:
            attempt += 1
            begun = time.monotonic()
            try:
                with telemetry.timed(MINT):
                    got = self._mint()
            except CredentialError as error:
                is_slow = time.monotonic() - begun > _QUICK
                pause = max(_BACKOFF * 2 ** (attempt - 1), error.retry_after or 0.0)
                if attempt >= self._attempts or not error.is_transient or is_slow or pause > _LONGEST_PAUSE:
                    raise
                time.sleep(pause)
            except Exception as error:
                raise CredentialError(f"the {self._name} raised {type(error).__name__}", step="creating") from error
            else:
                return checked_credential(got, str(self._name))

    def _succeed(self, flight: SingleFlight[str], got: str | DatabaseCredential) -> None:
        # The flight ends and its token is in place in one step: no caller can come between and start another.
        with self._lock:
            # A flight that was left behind comes late: a token minted since then is as good, and in use.
            is_wanted = self._ended(flight) or (flight is not self._distrusted and self._cached.look()[0] is None)
            token = self._cached.store(got) if is_wanted else password_in(got)
            self.mints += 1
            is_useless = isinstance(got, DatabaseCredential) and self._cached.look()[0] is None
        flight.succeed(token)
        if is_useless:
            logger.warning(
                "%s: minted, and at its end by this machine's clock, so that each connection needs another: is the "
                "clock right?",
                self._name,
            )

    def _fail(self, flight: SingleFlight[str], error: BaseException) -> None:
        forget_locals(error)  # a function that fetches passwords may have one in hand
        with self._lock:
            self._ended(flight)
            self._cached.postpone(_REFRESH_AGAIN)
        flight.fail(error)

    def _ended(self, flight: SingleFlight[str]) -> bool:
        is_current = self._flight is flight
        if is_current:
            self._flight = None
            self._patience = self._timeout
        return is_current

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"


class AsyncCallablePassword(CredentialSource):
    """Passwords from an `async` callable, one call at a time for all tasks of a loop that wait for it."""

    __slots__ = ("_cached", "_call", "_flights", "_lock", "_timeout")

    def __init__(
        self,
        call: Callable[[], Awaitable[str | DatabaseCredential]],
        *,
        margin: float = EXPIRY_MARGIN,
        timeout: float = MINT_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = call
        self._timeout = timeout
        self._lock = make_lock()
        self._cached = CachedCredential(margin=margin, ahead=0.0, longest=float("inf"), clock=clock)
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, TaskFlight[str]] = WeakKeyDictionary()

    def password(self, timeout: float | None = None) -> str:  # noqa: D102
        raise ConfigurationError(
            "password is an async callable, and this pool blocks: give a plain function, or use the asyncio pool",
            field="password",
        )

    async def apassword(self) -> str:  # noqa: D102
        with self._lock:
            token, _ = self._cached.look()
        if token is not None:
            return token
        loop = asyncio.get_running_loop()
        flight = self._flights.get(loop)
        if flight is None:
            flight = self._flights[loop] = TaskFlight(partial(self._flights.pop, loop, None), outlives_waiters=True)
            flight.begin(self._fetch())
        await flight.wait_async()
        return _outcome(flight)

    async def _fetch(self) -> str:
        try:
            with WithoutLocals():  # a function that fetches passwords may have one in hand
                async with asyncio.timeout(self._timeout):
                    got = await self._called()
        except CredentialError:
            raise
        except TimeoutError as error:
            raise CredentialError(
                f"the password callable did not answer within {self._timeout:.3g} s", is_transient=True, step="creating"
            ) from error
        except Exception as error:
            raise CredentialError(f"the password callable raised {type(error).__name__}", step="creating") from error
        with self._lock:
            return self._cached.store(got)

    async def _called(self) -> str | DatabaseCredential:
        with telemetry.timed(MINT):
            return checked_credential(await self._call(), "password callable")

    def invalidate(self, password: str) -> bool:  # noqa: D102
        with self._lock:
            self._cached.drop(password)
        return True


def _outcome(flight: SingleFlight[str]) -> str:
    """
    What a flight that has ended got.

    Raises:
        CredentialError: It failed. Each caller raises its own error, with its own traceback and context.
    """
    error = flight.error
    if error is None:
        return flight.result
    if isinstance(error, CredentialError):
        own = error.again(step=error.step)
        raise own from (error.__cause__ or error)
    raise CredentialError(f"no password could be had: {type(error).__name__}", step="creating") from error
