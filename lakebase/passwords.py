"""
Passwords for new connections: fixed, minted, or fetched; one at a time for all who wait.

What has to be minted is minted once for all callers, on a thread of its own: so
no caller owns the minting, and one that gives up, is cancelled, or belongs to
an event loop that ends disturbs nobody else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn
from weakref import WeakKeyDictionary

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
#: And is replaced in the background by whoever asks for it this long before that.
REFRESH_AHEAD = 480.0
#: Seconds that a caller waits for a mint, all its attempts included.
MINT_TIMEOUT = 30.0
_BACKOFF = 0.25

logger = logging.getLogger("lakebase")
# A failure that took longer came after the SDK's own retries.
_QUICK = 2.0
_REFRESH_AGAIN = 30.0


@dataclass(frozen=True, slots=True)
class DatabaseCredential:
    """
    A password of limited life.

    Args:
        token: The password. Never shown.
        expires_at: Aware instant after which no login takes it; connections stay open.
    """

    token: str = field(repr=False)
    expires_at: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.token, str) or not self.token:
            what = "empty" if isinstance(self.token, str) else f"of type {type(self.token).__name__}"
            raise ConfigurationError(f"token is {what}: expected a string", field="token")
        if not isinstance(self.expires_at, datetime):
            raise ConfigurationError(
                f"expires_at is of type {type(self.expires_at).__name__}: expected an aware datetime; a password "
                "without an end is given as a string instead",
                field="expires_at",
            )
        if self.expires_at.tzinfo is None:
            raise ConfigurationError(
                "expires_at has no time zone: an instant is meant; add tzinfo=datetime.UTC if it is UTC",
                field="expires_at",
            )


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

        Blocks while one is minted. Giving up does not stop the minting, which
        serves whoever asks next.

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
        login is worth another attempt. A password that has been replaced
        meanwhile stays replaced: of many rejected logins the first alone causes a mint.
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


class _Cached:
    """
    One credential and when to stop using it.

    Its life is measured on the monotonic clock from the moment it arrived: what
    the wall clock does afterwards changes nothing.
    """

    __slots__ = ("_ahead", "_clock", "_longest", "_margin", "_refresh_at", "_stale_at", "_token")

    def __init__(self, *, margin: float, ahead: float, longest: float, clock: Callable[[], float]) -> None:
        self._margin = margin
        self._ahead = ahead
        self._longest = longest
        self._clock = clock
        self._token: str | None = None
        self._stale_at = self._refresh_at = 0.0

    def look(self) -> tuple[str | None, bool]:
        """The token, unless it is too old, and whether it is time for the next one."""
        now = self._clock()
        if self._token is None or now >= self._stale_at:
            return None, True
        return self._token, now >= self._refresh_at

    def store(self, got: str | DatabaseCredential) -> str:
        if isinstance(got, str):
            return got
        remaining = (got.expires_at - datetime.now(UTC)).total_seconds()
        usable = min(remaining, self._longest) - self._margin
        self._token = got.token
        self._stale_at = self._clock() + usable
        # A short-lived token is not refreshed from the first moment on.
        self._refresh_at = self._stale_at - min(self._ahead, usable / 2)
        return got.token

    def postpone(self, seconds: float) -> None:
        """Do not ask for the next one for a while."""
        self._refresh_at = max(self._refresh_at, self._clock() + seconds)

    def drop(self, token: str) -> None:
        if self._token == token:
            self._token = None


def _token(got: str | DatabaseCredential) -> str:
    return got if isinstance(got, str) else got.token


class MintedPassword(CredentialSource):
    """
    Passwords from a function that blocks: the workspace's credentials, or a plain password callable.

    A `DatabaseCredential` is kept until `margin` before it expires, and replaced
    in the background when it is asked for within `refresh_ahead` of that. A
    string is used for the callers that waited for it, and asked for anew
    by the next.

    Args:
        mint: Runs on a thread of its own; not twice at once, unless one has not ended long after its time.
        name: What it is for, in errors: `str()` of it.
        margin: Seconds.
        refresh_ahead: Seconds, before the margin.
        timeout: Seconds that a caller waits at most.
        attempts: Calls of `mint` for failures that may pass and come quickly, with a growing pause between.
        longest: Seconds that a credential is believed to live at most, whatever it says.
        after: Called once, on the same thread, when the first mint has succeeded and nobody waits for it any more.
        clock: Monotonic seconds.

    Attributes:
        mints: How often `mint` succeeded.
    """

    __slots__ = (
        "_after",
        "_attempts",
        "_begun",
        "_cached",
        "_clock",
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mint = mint
        self._name = name
        self._timeout = timeout
        self._attempts = attempts
        self._after = after
        self._lock = threading.Lock()
        self._cached = _Cached(margin=margin, ahead=refresh_ahead, longest=longest, clock=clock)
        self._clock = clock
        self._flight: Future[str] | None = None
        self._begun = 0.0
        self._patience = timeout
        self._pid = os.getpid()
        self.mints = 0

    def password(self, timeout: float | None = None) -> str:  # noqa: D102
        got = self._token_or_flight()
        if isinstance(got, str):
            return got
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        try:
            error = got.exception(seconds)
        except TimeoutError:
            raise self._too_slow(seconds) from None
        return got.result() if error is None else _reraise(error)

    async def apassword(self) -> str:  # noqa: D102
        got = self._token_or_flight()
        if isinstance(got, str):
            return got
        # A running `Future` cannot be cancelled: the cancelled task leaves, the flight goes on.
        waiting = asyncio.wrap_future(got)
        try:
            await asyncio.wait({waiting}, timeout=self._timeout)
        finally:
            waiting.cancel()
        if waiting.cancelled():
            raise self._too_slow(self._timeout)
        error = waiting.exception()
        return waiting.result() if error is None else _reraise(error)

    def _too_slow(self, seconds: float) -> CredentialError:
        return CredentialError(
            f"{self._name}: no credential within {seconds:.3g} s. It is still being waited for, and serves later "
            "connections; if this is usual, the workspace cannot be reached from here.",
            is_transient=True,
            step="creating",
        )

    def invalidate(self, password: str) -> bool:  # noqa: D102
        with self._lock:
            self._cached.drop(password)
        return True

    def _token_or_flight(self) -> str | Future[str]:
        if self._pid != os.getpid():
            # After a fork: the thread of a flight is the parent's, and whoever held the lock too.
            self._lock = threading.Lock()
            self._flight = None
            self._patience = self._timeout
            self._pid = os.getpid()
        with self._lock:
            token, is_due = self._cached.look()
            flight = self._flight
            if flight is not None and self._clock() - self._begun > self._patience:
                # The SDK sets no time limit on its OAuth requests, and one that nobody answers never ends. The thread
                # is left behind; waiting longer before the next keeps their number small.
                self._patience *= 2
                flight = None
            if is_due and flight is None:
                self._begun = self._clock()
                flight = self._flight = Future()
                flight.set_running_or_notify_cancel()
                start = True
            else:
                start = False
        if start:
            assert flight is not None
            try:
                threading.Thread(target=self._fly, args=(flight,), name="lakebase-mint", daemon=True).start()
            except BaseException as error:
                # Too many threads, or an interrupt: whoever joined must not wait for a thread that never was.
                self._crash(flight, error)
                raise
        if token is not None:
            return token
        assert flight is not None
        return flight

    def _fly(self, flight: Future[str]) -> None:
        try:
            got = self._minted()
        except BaseException as error:  # noqa: BLE001 - it is the waiting callers'
            self._crash(flight, error)
            return
        self._land(flight, got)
        if (after := self._after) is not None:
            self._after = None
            after()

    def _minted(self) -> str | DatabaseCredential:
        attempt = 0
        while True:
            attempt += 1
            begun = time.monotonic()
            try:
                got = self._mint()
            except CredentialError as error:
                is_slow = time.monotonic() - begun > _QUICK
                if attempt >= self._attempts or not error.is_transient or is_slow:
                    raise
                time.sleep(_BACKOFF * 2 ** (attempt - 1))
            except Exception as error:
                raise CredentialError(f"the {self._name} raised {type(error).__name__}", step="creating") from error
            else:
                return _checked(got, str(self._name))

    def _land(self, flight: Future[str], got: str | DatabaseCredential) -> None:
        # The flight ends and its token is in place in one step: nobody can come between and start another.
        with self._lock:
            # One that was left behind comes late: what was minted since is as good, and in use.
            is_wanted = self._ended(flight) or self._cached.look()[0] is None
            token = self._cached.store(got) if is_wanted else _token(got)
            self.mints += 1
            is_useless = isinstance(got, DatabaseCredential) and self._cached.look()[0] is None
        flight.set_result(token)
        if is_useless:
            logger.warning(
                "%s: minted, and at its end by this machine's clock, so that each connection needs another: is the "
                "clock right?",
                self._name,
            )

    def _crash(self, flight: Future[str], error: BaseException) -> None:
        with self._lock:
            self._ended(flight)
            self._cached.postpone(_REFRESH_AGAIN)
        flight.set_exception(error)

    def _ended(self, flight: Future[str]) -> bool:
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
        self._lock = threading.Lock()
        self._cached = _Cached(margin=margin, ahead=0.0, longest=float("inf"), clock=clock)
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[str]] = WeakKeyDictionary()

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
            # A task of its own: the first caller's cancellation is not the others'.
            flight = self._flights[loop] = loop.create_task(self._fly(loop), name="lakebase-password")
            flight.add_done_callback(_retrieve)
        await asyncio.wait({flight})
        error = flight.exception()
        return flight.result() if error is None else _reraise(error)

    async def _fly(self, loop: asyncio.AbstractEventLoop) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                got = _checked(await self._call(), "password callable")
        except CredentialError:
            raise
        except TimeoutError as error:
            raise CredentialError(
                f"the password callable did not answer within {self._timeout:.3g} s", is_transient=True, step="creating"
            ) from error
        except Exception as error:
            raise CredentialError(f"the password callable raised {type(error).__name__}", step="creating") from error
        finally:
            self._flights.pop(loop, None)
        with self._lock:
            return self._cached.store(got)

    def invalidate(self, password: str) -> bool:  # noqa: D102
        with self._lock:
            self._cached.drop(password)
        return True


def _reraise(error: BaseException) -> NoReturn:
    # Each caller raises one of its own: a shared one would collect everybody's traceback and context.
    if isinstance(error, CredentialError):
        own = CredentialError(*error.args, is_transient=error.is_transient, step=error.step)
        raise own from (error.__cause__ or error)
    raise CredentialError(f"no password could be had: {type(error).__name__}", step="creating") from error


def _retrieve(task: asyncio.Task[str]) -> None:
    # With every caller gone, nobody else would look at the error, and the loop would report it as lost.
    if not task.cancelled():
        task.exception()


def _checked(got: object, name: str) -> str | DatabaseCredential:
    if isinstance(got, DatabaseCredential) or (isinstance(got, str) and got):
        return got
    what = "an empty string" if got == "" else f"a {type(got).__name__}"
    if inspect.iscoroutine(got):
        got.close()
        what = "a coroutine (give the async function itself, without a lambda around it)"
    raise CredentialError(f"the {name} returned {what}: expected a password or a DatabaseCredential", step="creating")
