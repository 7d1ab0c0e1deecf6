"""The engine's errors as psycopg_pool's: what a pool raises can be caught by either name."""

from __future__ import annotations

from typing import Any

import psycopg_pool

from pooling import CreateError, PoolClosedError, PoolExhaustedError, PoolingError, PoolTimeoutError, ReleaseError

from ._connecting import CHECKING, MINTING, step_of
from .errors import CallbackError, ConfigurationError, ConnectError, CredentialError, LakebaseError

__all__ = [
    "LakebasePoolClosed",
    "LakebasePoolTimeout",
    "LakebaseTooManyRequests",
    "mint_error",
    "mint_timeout",
    "translated",
]


# Named after psycopg_pool's errors, each of which they are.
class LakebasePoolTimeout(PoolTimeoutError, psycopg_pool.PoolTimeout):  # noqa: N818
    """No connection within the timeout; `step` says where the time went, `__cause__` is the last failed connect."""


class LakebasePoolClosed(PoolClosedError, psycopg_pool.PoolClosed):  # noqa: N818
    """The pool was closed before or during the call."""


class LakebaseTooManyRequests(PoolExhaustedError, psycopg_pool.TooManyRequests):  # noqa: N818
    """As many borrowers wait as `max_waiting` allows."""


def translated(error: PoolingError, *, title: str, renewal: str, doing: str) -> Exception:
    """
    The engine's error as one that is psycopg_pool's too; a failed connect as the error that it failed with.

    Args:
        error: Raised by the pool's service.
        title: What texts call the pool.
        renewal: What its user does to get a pool that is open.
        doing: What the latest attempt to connect was doing.
    """
    facts = {"pool": error.pool, "key": error.key, "step": error.step, "counts": error.counts}
    own: Exception
    if isinstance(error, CreateError) and error.__cause__ is not None:
        return _of_connecting(error.__cause__, facts) or _of_callback(error, doing, facts)
    if isinstance(error, PoolTimeoutError):
        own = LakebasePoolTimeout(
            _timed_out(error, doing), timeout=error.timeout, limit=error.limit, holders=error.holders, **facts
        )
    elif isinstance(error, PoolClosedError):
        own = LakebasePoolClosed(f"the {title} was closed; {renewal}", **facts)
    elif isinstance(error, PoolExhaustedError):
        own = LakebaseTooManyRequests(str(error), limit=error.limit, holders=error.holders, **facts)
    elif isinstance(error, ReleaseError):
        own = ValueError(f"can't return connection to {title}: {str(error).replace('`lease()`', '`connection()`')}")
    else:
        return error
    own.__cause__ = error.__cause__
    return own


def mint_error(error: CredentialError, *, pool: str, key: Any) -> CredentialError:
    """A borrower's own error for a mint that failed before a connection was asked for."""
    return error.again(step=error.step, pool=pool, key=key)


def mint_timeout(error: CredentialError, *, title: str, timeout: float, pool: str, key: Any) -> LakebasePoolTimeout:
    """The same where no mint has succeeded within the borrower's timeout."""
    return LakebasePoolTimeout(
        f"{title}: no connection within timeout={timeout:.3g} s (step: {MINTING}).\n{type(error).__name__}: {error}",
        timeout=timeout,
        pool=pool,
        key=key,
        step="creating",
    )


def _of_connecting(cause: BaseException | None, facts: dict[str, Any]) -> Exception | None:
    """
    What a connect failed with, as a new error; `None` if it is no error of this package.

    One failed login is the answer to every waiter: each gets its own error, with its own traceback.
    """
    own: Exception
    if isinstance(cause, ConnectError):
        own = type(cause)(str(cause), failure=cause.failure, **facts)
    elif isinstance(cause, CredentialError):
        own = cause.again(**facts)
    elif isinstance(cause, ConfigurationError):
        own = ConfigurationError(str(cause), field=cause.field, **facts)
    else:
        return None
    own.__cause__ = cause.__cause__
    return own


def _of_callback(error: CreateError, doing: str, facts: dict[str, Any]) -> CallbackError:
    """What is told of a callback that failed for good: the engine's words, in which no credential is left."""
    name = CHECKING if error.step == "validating" else step_of(error.__cause__, doing)
    text = str(error)
    for engines in ("create failed", "checking a new connection failed"):
        text = text.replace(engines, f"{name} failed", 1)
    own = CallbackError(text.partition(" (step: ")[0] + ".", **facts)
    own.__cause__ = error.__cause__
    return own


def _timed_out(error: PoolTimeoutError, doing: str) -> str:
    """The engine's words, with the step named as connecting knows it, and the cause's words."""
    text, cause = str(error), error.__cause__
    if error.step == "creating":
        text = text.replace("(step: creating)", f"(step: {doing})")
    # These have been cleared of secrets; a driver's own, or a callback's, have not.
    if isinstance(cause, LakebaseError):
        text += f"\n{type(cause).__name__}: {cause}"
    return text
