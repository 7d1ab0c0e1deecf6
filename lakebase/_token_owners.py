"""
Whose a user's workspace token is, as the workspace says.

It is asked once for all callers that wait for the answer (a single flight), on a background thread, and the answer is
believed for a while. Nothing but an answer makes a token somebody's: without one, its callers get an error.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, NoReturn

from pooling import SingleFlight
from pooling.locks import make_lock

from ._pool_errors import LakebasePoolTimeout
from ._user_client import workspace_at
from ._workers import run_alone
from ._workspace import is_transient, new_client, quiet
from .errors import CredentialError, IdentityError, LakebaseError
from .identity import TOKEN_HEADER, UserIdentity, token_fingerprint

__all__ = ["Owner", "TokenOwners", "check_owner"]

#: Tokens whose owner is remembered. Each takes some hundred bytes.
MOST_TOKENS = 10_000
#: Seconds after which a question without an answer is given up, and the next caller asks again.
OVERDUE = 60.0


class Owner(NamedTuple):
    """
    The owner of a token.

    Args:
        name: The user name in the workspace, such as an e-mail address.
        user_id: The workspace's number of the user.
    """

    name: str
    user_id: str | None


class _Known(NamedTuple):
    owner: Owner
    asked_at: float


class _Asking(SingleFlight[Owner]):
    """One question to the workspace, and the callers that wait for its answer."""

    def __init__(self, asked_at: float) -> None:
        self.asked_at = asked_at


class TokenOwners:
    """
    The owners of tokens. May be shared by any number of threads and event loops.

    Args:
        workspace_url: Of the workspace; `None` is the environment's.
        max_age: Seconds for which an answer is believed.
        most: Tokens remembered; of more, the least recently used are asked for again.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        workspace_url: str | None,
        *,
        max_age: float,
        most: int = MOST_TOKENS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace_url = workspace_url
        self._max_age = max_age
        self._most = most
        self._clock = clock
        self._lock = make_lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()  # by fingerprint, the least recently used first
        self._flights: dict[str, _Asking] = {}
        self._pid = os.getpid()

    def known(self, token: str) -> Owner | None:
        """The owner, if the workspace has told within `max_age`. Never blocks."""
        return self._find(token_fingerprint(token) or "")

    def ask(self, token: str, timeout: float) -> Owner:
        """
        The owner, as the workspace tells now or has told.

        Blocks for a request. Giving up does not stop it; it serves the next caller.

        Raises:
            IdentityError: The workspace does not accept the token.
            CredentialError: It could not be asked.
            PoolTimeoutError: There was no answer within `timeout` seconds.
        """
        got = self._find_or_fly(token)
        if isinstance(got, Owner):
            return got
        got.wait(timeout)
        return _outcome(got) if got.is_over else _give_up(timeout)

    async def aask(self, token: str, timeout: float) -> Owner:
        """As `ask`, suspending."""
        got = self._find_or_fly(token)
        if isinstance(got, Owner):
            return got
        try:
            async with asyncio.timeout(timeout):
                await got.wait_async()
        except TimeoutError:
            _give_up(timeout)
        return _outcome(got)

    def _find(self, fingerprint: str) -> Owner | None:
        if self._pid != os.getpid():
            # After a fork: a thread of the parent may have held the lock, and those that ask are the parent's.
            self._lock, self._flights, self._pid = make_lock(), {}, os.getpid()
        with self._lock:
            return self._look(fingerprint)

    def _look(self, fingerprint: str) -> Owner | None:
        found = self._known.get(fingerprint)
        if found is None or self._clock() - found.asked_at >= self._max_age:
            return None
        self._known.move_to_end(fingerprint)
        return found.owner

    def _find_or_fly(self, token: str) -> Owner | SingleFlight[Owner]:
        """The owner at hand, or else the flight to wait for, begun if there is none."""
        fingerprint = token_fingerprint(token) or ""
        if (owner := self._find(fingerprint)) is not None:
            return owner
        with self._lock:
            if (owner := self._look(fingerprint)) is not None:
                return owner
            under_way = self._flights.get(fingerprint)
            if under_way is not None and self._clock() - under_way.asked_at <= OVERDUE:
                return under_way
            flight = self._flights[fingerprint] = _Asking(self._clock())
        try:
            workspace = workspace_at(self._workspace_url)
            (run_alone if workspace is None else workspace.workers.run)(partial(self._fly, flight, fingerprint, token))
        except BaseException as error:
            # Too many threads, or an interrupt: callers that joined must not wait for a thread that never began.
            self._end(flight, fingerprint, None)
            flight.fail(error)
            raise
        return flight

    def _fly(self, flight: _Asking, fingerprint: str, token: str) -> None:
        try:
            owner = _asked(self._workspace_url, token)
        except BaseException as error:  # noqa: BLE001 - it is the waiting callers'
            self._end(flight, fingerprint, None)
            flight.fail(error)
            return
        self._end(flight, fingerprint, _Known(owner, flight.asked_at))
        flight.succeed(owner)

    def _end(self, flight: _Asking, fingerprint: str, known: _Known | None) -> None:
        # A flight ends and its answer is in place in one step: no caller can come between and ask again.
        with self._lock:
            if self._flights.get(fingerprint) is flight:
                del self._flights[fingerprint]
            self._known.pop(fingerprint, None)
            if known is not None:
                self._known[fingerprint] = known
                while len(self._known) > self._most:
                    self._known.popitem(last=False)


def check_owner(identity: UserIdentity, owner: Owner) -> None:
    """
    Compare the user of an identity with the owner of its token.

    Raises:
        IdentityError: They differ.
    """
    user = identity.user
    if user == owner.name:
        return
    # Without an e-mail address the header has the user's number, perhaps with the workspace's.
    number, _, workspace = user.partition("@")
    if identity.email is None and number == owner.user_id and (user == number or workspace.isdecimal()):
        return
    if user.lower() == owner.name.lower():
        raise IdentityError(
            f"the request names {user!r}, and the workspace writes the owner of its token {owner.name!r}. Postgres "
            "tells upper from lower case: build the identity with one spelling, UserIdentity(name, token).",
            header=TOKEN_HEADER,
        )
    raise IdentityError(f"the request names {user!r}, and its token is another user's", header=TOKEN_HEADER)


def _asked(workspace_url: str | None, token: str) -> Owner:
    """Ask the workspace. Blocks for a request."""
    try:
        client = new_client(host=workspace_url, token=token)
        with quiet():
            me = client.current_user.me()
    except Exception as error:
        # The SDK adds all of its settings.
        words = " ".join(str(error).split()).partition(". Config: ")[0].replace(token, "***")
        # By name, since the SDK's errors and those of a user's client have the same names.
        if type(error).__name__ in ("PermissionDenied", "Unauthenticated"):
            raise IdentityError(
                f"the workspace does not accept the request's token: {words.rstrip('.')}. It may have expired, been "
                "revoked, or be of another workspace.",
                header=TOKEN_HEADER,
            ) from error
        raise CredentialError(
            f"the request's user could not be verified: {type(error).__name__}: {words.rstrip('.')}. Check that "
            "DATABRICKS_HOST or workspace_url= is the workspace that issues the tokens, and that it can be reached.",
            is_transient=is_transient(error),
            retry_after=getattr(error, "retry_after", None),
        ) from error
    if not me.user_name:
        raise IdentityError("the workspace does not name the owner of the request's token", header=TOKEN_HEADER)
    return Owner(me.user_name, me.id)


def _outcome(flight: SingleFlight[Owner]) -> Owner:
    """What a flight that has ended got; each caller raises its own error."""
    error = flight.error
    if error is None:
        return flight.result
    own: LakebaseError
    if isinstance(error, IdentityError):
        own = IdentityError(*error.args, header=error.header)
    elif isinstance(error, CredentialError):
        own = error.again()
    else:
        own = CredentialError(f"the request's user could not be verified: {type(error).__name__}")
    raise own from (error.__cause__ or error)


def _give_up(seconds: float) -> NoReturn:
    raise LakebasePoolTimeout(
        f"no connection within timeout={seconds:.3g} s (step: verifying the user): the workspace has not told whose "
        "token the request has. It is still being waited for, and serves later requests.",
        step="verifying the user",
        timeout=seconds,
    ) from None
