"""A password of limited life, and how long it is used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .errors import ConfigurationError, CredentialError

__all__ = ["CachedCredential", "DatabaseCredential", "checked_credential", "password_in"]


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


class CachedCredential:
    """
    One credential and when to stop using it.

    Its life is measured on the monotonic clock from the moment it arrived: a later change of the wall clock has no
    effect.

    Args:
        margin: Seconds before its end in which it is no longer used.
        ahead: Seconds before the margin in which the next one is due.
        longest: Seconds that it is believed to live at most.
        clock: Monotonic seconds.
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
        """Keep it, unless it is a plain password; the password."""
        if isinstance(got, str):
            return got
        remaining = (got.expires_at - datetime.now(UTC)).total_seconds()
        usable = min(remaining, self._longest) - self._margin
        self._token = got.token
        self._stale_at = self._clock() + usable
        # Not before half of its life, or a short-lived token would be due at once.
        self._refresh_at = self._stale_at - min(self._ahead, usable / 2)
        return got.token

    def postpone(self, seconds: float) -> None:
        """Do not ask for the next one for a while."""
        self._refresh_at = max(self._refresh_at, self._clock() + seconds)

    def drop(self, token: str) -> bool:
        """Stop using this one, if it is still the one at hand; whether it was."""
        was_at_hand = self._token == token
        if was_at_hand:
            self._token = None
        return was_at_hand


def password_in(got: str | DatabaseCredential) -> str:
    """The password itself."""
    return got if isinstance(got, str) else got.token


def checked_credential(got: object, name: str) -> str | DatabaseCredential:
    """
    What a callable returned, if that is a password.

    Raises:
        CredentialError: It is something else; `name` says what returned it.
    """
    if isinstance(got, DatabaseCredential) or (isinstance(got, str) and got):
        return got
    what = "an empty string" if got == "" else f"a {type(got).__name__}"
    if inspect.iscoroutine(got):
        got.close()
        what = "a coroutine (give the async function itself, without a lambda around it)"
    raise CredentialError(f"the {name} returned {what}: expected a password or a DatabaseCredential", step="creating")
