"""What the errors and warnings of a pool say: wanted, limit, step, counts, likeliest cause, one thing to try."""

from __future__ import annotations

from typing import Any

from ._ledger import STOPPED, SUSPENDED, Ledger, Slot
from ._sites import describe
from .errors import CreateError, PoolClosedError, PoolCounts, PoolExhaustedError, PoolTimeoutError, ReleaseError

QUEUEING, CREATING, VALIDATING = "queueing", "creating", "validating"
ACQUIRE_HOOK, RELEASE_HOOK = "acquire hook", "release hook"


def title(name: str, key: Any) -> str:
    """How texts call a pool."""
    return f"pool {name!r}" if key is None else f"pool {name!r} key {key!r}"


def counts_of(ledger: Ledger) -> PoolCounts:
    """The pool's numbers now."""
    return PoolCounts(
        borrowed=max(ledger.live - len(ledger.idle), 0),
        idle=len(ledger.idle),
        creating=len(ledger.opening) + len(ledger.late),
        closing=len(ledger.closing),
        waiting=ledger.waiting,
        max_size=ledger.max_size,
    )


def holder(slot: Slot, now: float) -> str:
    """Since when and where a resource is out."""
    if slot.noted != slot.uses:
        return "at a place not noted (from now on this pool notes every borrower)"
    place = describe(slot.code, slot.lasti)
    return f"{max(now - slot.taken_at, 0):.1f} s ago" + (f" at {place}" if place else "")


def by_age(ledger: Ledger) -> list[Slot]:
    """What is out, longest first; behind that what nobody noted."""
    return sorted(ledger.out.copy().values(), key=lambda slot: (slot.noted != slot.uses, slot.taken_at))


def holders(ledger: Ledger, now: float, *, most: int = 3) -> str:
    """Who has what is out, longest first."""
    out = by_age(ledger)
    text = "; ".join(f"borrowed {holder(slot, now)}" for slot in out[:most])
    return text + (f"; and {len(out) - most} more" if len(out) > most else "")


def timed_out(
    name: str, key: Any, ledger: Ledger, now: float, *, timeout: float, step: str, error: BaseException | None
) -> PoolTimeoutError:
    """Time ran out at this step."""
    counts = counts_of(ledger)
    oldest = next(iter(by_age(ledger)), None)
    moment = f"At that moment: {counts}"
    if oldest is not None:
        moment += f"; oldest borrowed {holder(oldest, now)}"
    if ledger.state == SUSPENDED:
        advice = "The pool is suspended: call resume()."
    elif step == VALIDATING:
        advice = "validate() took or failed until the end: see what it waits for, or raise timeout."
    elif step == ACQUIRE_HOOK:
        advice = "The acquire hook did not end: see what it waits for, or raise timeout."
    elif error is not None:
        advice = (
            f"Creating failed {ledger.failures} times in a row, last with {type(error).__name__}: "
            "that error is the cause of this one."
        )
    elif step == CREATING:
        advice = "create() has not ended: see what it waits for, raise timeout, or bound it by create_timeout."
    elif counts.borrowed >= counts.max_size:
        advice = "Release that one sooner or raise max_size."
    else:
        advice = "See whether destroy() hangs, or raise timeout."
    return PoolTimeoutError(
        f"{title(name, key)}: no resource within timeout={timeout} s (step: {step}).\n{moment}.\n{advice}",
        pool=name,
        key=key,
        step=step,
        counts=counts,
        timeout=timeout,
    )


def exhausted(name: str, key: Any, ledger: Ledger, now: float, *, limit: str) -> PoolExhaustedError:
    """The borrower may not queue."""
    counts = counts_of(ledger)
    out = holders(ledger, now, most=1)
    advice = "Release sooner, raise max_size, or let borrowers wait."
    return PoolExhaustedError(
        f"{title(name, key)}: nothing idle, no room for one more, and {limit} allows no further waiting "
        f"(step: {QUEUEING}).\nAt that moment: {counts}{'; ' + out if out else ''}.\n{advice}",
        pool=name,
        key=key,
        step=QUEUEING,
        counts=counts,
        limit=limit,
    )


def closed(
    name: str, key: Any, ledger: Ledger, *, waited: float, is_off_the_map: bool, step: str = QUEUEING
) -> PoolClosedError:
    """The pool is stopped."""
    advice = ": its key was closed; ask the keyed service again" if is_off_the_map else ". Call start() to use it again"
    return PoolClosedError(
        f"{title(name, key)} is stopped: nothing can be acquired (step: {step}){advice}.",
        pool=name,
        key=key,
        step=step,
        counts=counts_of(ledger),
        waited=waited,
    )


def create_failed(name: str, key: Any, ledger: Ledger, error: BaseException) -> CreateError:
    """A create failed for good."""
    said = f": {error}" if isinstance(error, CreateError) else f" with {type(error).__name__}"
    return CreateError(
        f"{title(name, key)}: create failed{said}, and trying again would not help (step: {CREATING}). "
        "That error is the cause of this one.",
        pool=name,
        key=key,
        step=CREATING,
        counts=counts_of(ledger),
    )


def not_out(name: str, key: Any, ledger: Ledger, value: Any, elsewhere: str | None) -> ReleaseError:
    """Something was given back that this pool has not lent."""
    what = f"<{type(value).__name__} object at {id(value):#x}>"  # its own repr may hold secrets, or fail
    if any(slot.value is value for slot in list(ledger.slots)):
        why = "it was given back before. Give a resource back once; `lease()` does"
    elif elsewhere is not None:
        why = f"it is out from {elsewhere}. Give it back there"
    else:
        why = "it is not this pool's, or was destroyed. Give back the very object that acquire() returned, once"
    state = " (the pool is stopped)" if ledger.state == STOPPED else ""
    return ReleaseError(
        f"{title(name, key)}{state}: {what} is not out: {why}.",
        pool=name,
        key=key,
        step="releasing",
        counts=counts_of(ledger),
    )


def release_failed(name: str, key: Any, ledger: Ledger, error: BaseException, *, step: str, how: str) -> ReleaseError:
    """The release hook failed or took too long."""
    return ReleaseError(
        f"{title(name, key)}: the {step} {how} ({type(error).__name__}); the resource was destroyed and its "
        "place is free. That error is the cause of this one.",
        pool=name,
        key=key,
        step=step,
        counts=counts_of(ledger),
    )
