"""
Where a connection's password comes from.

A `CredentialSource` answers any number of threads or tasks that want a password
for a new connection. What has to be minted is minted once for all who wait, on
a thread of its own: so no caller owns the minting, and one that gives up,
is cancelled, or belongs to an event loop disturbs nobody else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, cast

from . import _workspace
from .errors import ConfigurationError, CredentialError
from .hosts import check_host_once
from .identity import token_fingerprint

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .config import LakebasePoolConfig

__all__ = [
    "AsyncCallablePassword",
    "CredentialCache",
    "CredentialSource",
    "DatabaseCredential",
    "MintedPassword",
    "StaticPassword",
    "credential_source",
    "generate_database_credential",
]

#: A token is not handed out in the last seconds of its life: a login takes a while.
EXPIRY_MARGIN = 120.0
#: And is replaced in the background by whoever asks for it this long before that.
REFRESH_AHEAD = 480.0
#: Seconds that a caller waits for a mint, all its attempts included.
MINT_TIMEOUT = 30.0
MINT_ATTEMPTS = 3
#: Longest life that the service gives a token. A machine whose clock is behind would believe in a longer one.
TOKEN_LIFETIME = 3600.0
_BACKOFF = 0.25
# A failure that took longer came after the SDK's own retries.
_QUICK = 2.0
_REFRESH_AGAIN = 30.0

logger = logging.getLogger("lakebase")


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
        if self.expires_at.tzinfo is None:
            raise ConfigurationError(
                "expires_at has no time zone: an instant is meant; add tzinfo=datetime.UTC if it is UTC",
                field="expires_at",
            )


def generate_database_credential(
    workspace_client: WorkspaceClient,
    endpoint: str | None = None,
    claims: Sequence[Any] | None = None,
    *,
    instance_name: str | None = None,
    ttl: float | None = None,
) -> DatabaseCredential:
    """
    A new credential for an endpoint, minted as the client's identity.

    Blocks for a request to the workspace, with the client's own retries; call it
    from a thread if there is an event loop. Nothing is cached.

    Args:
        workspace_client: A `databricks.sdk.WorkspaceClient`.
        endpoint: `projects/P/branches/B/endpoints/E`, or `projects/P/branches/B` for that branch's
            read-write endpoint.
        claims: Restricts the token to Unity Catalog tables: the SDK's `RequestedClaims`, or mappings of their shape.
        instance_name: Of a provisioned instance, instead of `endpoint`.
        ttl: Seconds that the token lives, 300 to 3600; `None` is the service's hour. Endpoints only.

    Raises:
        CredentialError: The workspace refused, or did not answer; `__cause__` is the SDK's error.
        ConfigurationError: Neither or both of `endpoint` and `instance_name` are given.
    """
    if (endpoint is None) == (instance_name is None):
        raise ConfigurationError("exactly one of endpoint= and instance_name= is needed", field="endpoint")
    if endpoint is not None and not endpoint.startswith("projects/"):
        raise ConfigurationError(
            f"endpoint={endpoint!r}: expected projects/P/branches/B/endpoints/E; for a provisioned instance, give "
            "instance_name= instead",
            field="endpoint",
        )
    try:
        token, expires_at = _workspace.mint(
            workspace_client, endpoint=endpoint, instance_name=instance_name, claims=claims, ttl=ttl
        )
    except CredentialError:
        raise
    except Exception as error:
        raise _mint_failed(error, endpoint or instance_name or "", workspace_client) from error
    return DatabaseCredential(token, expires_at)


def _mint_failed(error: Exception, target: str, client: WorkspaceClient) -> CredentialError:
    transient = _workspace.is_transient(error)
    advice = (
        "The workspace did not answer or is overloaded; it may work in a moment."
        if transient
        else "Check that the identity may use the endpoint, that its token is valid, and that the endpoint exists."
    )
    words = _workspace.without_secrets(client, " ".join(str(error).split())).rstrip(".")
    words = words if len(words) <= 300 else f"{words[:300]}…"
    return CredentialError(
        f"no credential could be minted for {target}: {type(error).__name__}: {words}. {advice}",
        is_transient=transient,
        step="creating",
    )


class CredentialSource(ABC):
    """
    Passwords for new connections, one identity's.

    May be shared by any number of threads and event loops.
    """

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


class MintedPassword(CredentialSource):
    """
    Passwords from a function that blocks: the workspace's credentials, or a plain password callable.

    A `DatabaseCredential` is kept until `margin` before it expires, and replaced
    in the background when it is asked for within `refresh_ahead` of that. A
    string is used for the callers that waited for it, and asked for anew
    by the next.

    Args:
        mint: Runs on a thread of its own, never twice at once.
        name: What it is for, in errors.
        margin: Seconds.
        refresh_ahead: Seconds, before the margin.
        timeout: Seconds that a caller waits at most.
        attempts: Calls of `mint` for failures that may pass and come quickly, with a growing pause between.
        longest: Seconds that a credential is believed to live at most, whatever it says.
        after: Called once, on the same thread, when the first mint has succeeded and nobody waits for it any more.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        mint: Callable[[], str | DatabaseCredential],
        *,
        name: str = "password callable",
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
        self._flight: Future[str] | None = None
        self._pid = os.getpid()
        self.mints = 0
        "Calls of the mint function that succeeded."

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
            self._pid = os.getpid()
        with self._lock:
            token, is_due = self._cached.look()
            flight = self._flight
            if is_due and flight is None:
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
                self._land(flight, error=error)
                raise
        if token is not None:
            return token
        assert flight is not None
        return flight

    def _fly(self, flight: Future[str]) -> None:
        try:
            got = self._minted()
        except BaseException as error:  # noqa: BLE001 - it is the waiting callers'
            self._land(flight, error=error)
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
                return _checked(got, self._name)

    def _land(
        self, flight: Future[str], got: str | DatabaseCredential | None = None, error: BaseException | None = None
    ) -> None:
        # The flight ends and its token is in place in one step: nobody can come between and start another.
        with self._lock:
            self._flight = None
            if got is not None:
                token = self._cached.store(got)
                self.mints += 1
            else:
                self._cached.postpone(_REFRESH_AGAIN)
        if error is not None:
            flight.set_exception(error)
        else:
            flight.set_result(token)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"


class AsyncCallablePassword(CredentialSource):
    """Passwords from an `async` callable, one call at a time for all tasks of a loop that wait for it."""

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
        self._flights: dict[asyncio.AbstractEventLoop, asyncio.Task[str]] = {}

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


class _Minter:
    """Mints for one configuration. Holds the app's client; a user's is made for each mint, once an hour."""

    def __init__(self, config: LakebasePoolConfig) -> None:
        self._config = config
        self._client: tuple[int, WorkspaceClient] | None = None

    def __call__(self) -> DatabaseCredential:
        config = self._config
        return generate_database_credential(
            self._get_client(), config.endpoint, config.claims, instance_name=config.instance_name
        )

    def check_host(self) -> None:
        # A user's client is not asked: it would be made anew for this, and the app's check tells the same.
        if self._config.token is None:
            check_host_once(self._config, self._get_client())

    def _get_client(self) -> WorkspaceClient:
        config = self._config
        if config.workspace_client is not None:
            return config.workspace_client
        # A client made before a fork shares its sockets with the parent.
        if self._client is not None and self._client[0] == os.getpid():
            return self._client[1]
        try:
            client = _workspace.new_client(host=config.workspace_url, token=config.token)
        except Exception as error:
            raise CredentialError(
                "no client for the workspace could be made: the SDK found no host, or no way to authenticate there. "
                "Set DATABRICKS_HOST and the app's credentials, or give workspace_client=",
                is_transient=_workspace.is_transient(error),
                step="creating",
            ) from error
        if config.token is None:
            self._client = os.getpid(), client
        # A user's client is let go with its sockets: thousands of users would keep one to the workspace each.
        return client


def credential_source(config: LakebasePoolConfig, *, is_async: bool = False) -> CredentialSource:
    """
    Where the pool of this configuration has its passwords from. Does no I/O.

    Args:
        config: A resolved one.
        is_async: Whether `apassword()` will be called rather than `password()`.

    Raises:
        ConfigurationError: An `async` password callable for a pool that blocks.
    """
    password = config.password
    if isinstance(password, str):
        return StaticPassword(password)
    if password is not None:
        if _is_async(password):
            if not is_async:
                raise ConfigurationError(
                    "password is an async callable, and this pool blocks: give a plain function, or use the asyncio "
                    "pool",
                    field="password",
                )
            return AsyncCallablePassword(cast("Callable[[], Awaitable[str | DatabaseCredential]]", password))
        return MintedPassword(cast("Callable[[], str | DatabaseCredential]", password))
    target = config.endpoint or config.instance_name
    minter = _Minter(config)
    return MintedPassword(
        minter,
        name=f"credential of {config.user!r} for {target}",
        attempts=MINT_ATTEMPTS,
        longest=TOKEN_LIFETIME,
        after=minter.check_host,
    )


def _is_async(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


class CredentialCache:
    """
    Sources by identity, so that a user whose pool was dropped when idle comes back to the token of before.

    Blocks never. The least recently used are forgotten; a pool that holds one keeps it.

    Args:
        max_entries: Identities remembered.
    """

    def __init__(self, max_entries: int = 4096) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 0:
            raise ConfigurationError(
                f"max_entries={max_entries!r}: expected a whole number, at least 0", field="max_entries"
            )
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._sources: OrderedDict[tuple[Any, ...], CredentialSource] = OrderedDict()

    def source(self, config: LakebasePoolConfig, *, is_async: bool = False) -> CredentialSource:
        """The source of this configuration's identity: the same as before if it mints as the same one."""
        if config.password is not None:
            return credential_source(config, is_async=is_async)
        key = (
            config.user,
            token_fingerprint(config.token),
            config.workspace_client,
            config.workspace_url,
            config.endpoint,
            config.instance_name,
            repr(config.claims),
        )
        with self._lock:
            source = self._sources.get(key)
            if source is None:
                source = self._sources[key] = credential_source(config, is_async=is_async)
                while len(self._sources) > self._max_entries:
                    self._sources.popitem(last=False)
            else:
                self._sources.move_to_end(key)
        return source

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._sources.clear()

    def __len__(self) -> int:
        return len(self._sources)
