"""Texts of a pool's errors and warnings: wanted, limit, step, counts, likeliest cause, one thing to try."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import CreateError, PoolClosedError, PoolCounts, PoolExhaustedError, PoolTimeoutError, ReleaseError
from .borrowers import by_age, holder_of
from .ledger import STOPPED, SUSPENDED, Ledger

if TYPE_CHECKING:
    from ..stats import Holder
    from .standing import Member

# In a URL, before the host; and after the name of one.
_CREDENTIAL = re.compile(
    r"(://)[^\s/@]*(?=@)|((?:password|passwd|pwd|token|secret|api_?key)[\"']?\s*[=:]\s*)(?:'[^']*'|\S+)", re.IGNORECASE
)

QUEUEING, CREATING, VALIDATING = "queueing", "creating", "validating"
ACQUIRE_HOOK, RELEASE_HOOK = "acquire hook", "release hook"

NAMED = 3  # borrowers that an error names at most


def title(name: str, key: Any) -> str:
    """The pool's name and key, as texts begin with."""
    return f"pool {name!r}" if key is None else f"pool {name!r} key {key!r}"


def counts_of(ledger: Ledger) -> PoolCounts:
    """The pool's numbers now."""
    budget = ledger.budget
    idle = len(ledger.idle) + ledger.checked
    return PoolCounts(
        borrowed=max(ledger.live - idle, 0),
        idle=idle,
        creating=len(ledger.opening) + len(ledger.late),
        closing=len(ledger.closing),
        waiting=ledger.waiting,
        max_size=ledger.max_size,
        max_total=None if budget is None else budget.max_total,
        leased=None if budget is None or budget.full == budget.max_total else budget.full,
        squeezed_to=None if budget is None or budget.limit >= budget.full else budget.limit,
        total=0 if budget is None else budget.used,
        pools=0 if budget is None else len(budget.active),
    )


def sum_of(ledgers: list[Ledger], max_size: int) -> PoolCounts:
    """The sum of these ledgers' numbers; each ledger has the same `max_size`."""
    every = [counts_of(ledger) for ledger in ledgers]
    budget = every[0] if every else None
    return PoolCounts(
        borrowed=sum(counts.borrowed for counts in every),
        idle=sum(counts.idle for counts in every),
        creating=sum(counts.creating for counts in every),
        closing=sum(counts.closing for counts in every),
        waiting=sum(counts.waiting for counts in every),
        max_size=max_size,
        max_total=None if budget is None else budget.max_total,
        leased=None if budget is None else budget.leased,
        squeezed_to=None if budget is None else budget.squeezed_to,
        total=0 if budget is None else budget.total,
        pools=0 if budget is None else budget.pools,
    )


def longest_held(name: str, key: Any, ledger: Member, now: float, *, most: int) -> list[Holder]:
    """The borrowers of at most `most` resources that are out, longest out first; those not recorded last."""
    # Those not recorded since the last loans of the other resources; so sort before making objects.
    out = sorted(ledger.out.values(), key=lambda slot: (slot.noted != slot.uses, slot.taken_at))
    return [holder_of(name, key, slot, now) for slot in out[:most]]


def holders(name: str, key: Any, ledger: Ledger, now: float, *, most: int) -> str:
    """The borrowers of at most `most` resources, longest out first."""
    text = "; ".join(f"borrowed {holder}" for holder in longest_held(name, key, ledger, now, most=most))
    more = len(ledger.out) - most
    return text + (f"; and {more} more" if more > 0 else "")


def is_short(ledger: Ledger, now: float) -> bool:
    """Whether the budget, rather than `max_size`, leaves no room for one more resource."""
    budget = ledger.budget
    return budget is not None and len(ledger.slots) < ledger.max_size and budget.room_for(ledger, now) < 1


def find_longest_out(name: str, key: Any, ledger: Ledger, now: float, *, of_all: bool) -> tuple[Holder, ...]:
    """The borrowers with the oldest loans, `NAMED` at most: of this pool, or of all that share its budget."""
    if ledger.budget is None or not of_all:
        found = longest_held(name, key, ledger, now, most=NAMED)
    else:
        found = [
            holder
            for member in list(ledger.budget.active)
            for holder in longest_held(member.owner.name, member.owner.key, member, now, most=NAMED)
        ]
    return tuple(by_age(found)[:NAMED])


def longest_out(found: tuple[Holder, ...], ledger: Ledger, *, of_all: bool) -> str:
    """What errors say of these borrowers; empty if nothing is out. What is not known is said once."""
    told = [
        f"from {title(holder.pool, holder.key)} {holder}" if of_all else f"{holder}"
        for number, holder in enumerate(found)
        if number == 0 or holder.is_recorded
    ]
    if not told:
        return ""
    oldest = "; oldest of all borrowed " if of_all else "; oldest borrowed "
    text = f"{oldest}{', then '.join(told)}"
    # A pool with a budget records every borrower, so what is not recorded is of this pool.
    missed = sum(slot.noted != slot.uses for slot in list(ledger.out.values()))
    if missed and found[0].is_recorded:
        text += f"; {missed} more, perhaps older, at unrecorded call sites"
    return text


def timeout_error(
    name: str,
    key: Any,
    ledger: Ledger,
    now: float,
    *,
    timeout: float,
    step: str,
    error: BaseException | None,
    fills: bool = False,
) -> PoolTimeoutError:
    """The error for a timeout at this step; `fills` if `min_size` was not reached."""
    counts = counts_of(ledger)
    # To reach `min_size`, no idle resource of another pool is destroyed.
    is_spent = fills and ledger.budget is not None and ledger.budget.used >= ledger.budget.limit
    short = step == QUEUEING and (is_spent or is_short(ledger, now))
    limit = None
    if step == QUEUEING and ledger.state is not SUSPENDED:
        if short:
            limit = f"max_total={counts.max_total}"
        elif counts.borrowed >= counts.max_size:
            limit = f"max_size={counts.max_size}"
    wanted = f"min_size={ledger.min_size} was not reached" if fills else f"no {ledger.noun}"
    found = find_longest_out(name, key, ledger, now, of_all=short)
    return PoolTimeoutError(
        f"{title(name, key)}: {wanted} within timeout={timeout} s (step: {step}).\n"
        f"At that moment: {counts}{longest_out(found, ledger, of_all=short)}.\n"
        f"{_advice(ledger, step, error, counts, short=short, fills=fills)}",
        pool=name,
        key=key,
        step=step,
        counts=counts,
        timeout=timeout,
        limit=limit,
        holders=found,
    )


def _advice(
    ledger: Ledger, step: str, error: BaseException | None, counts: PoolCounts, *, short: bool, fills: bool
) -> str:
    """The likeliest cause of a timeout, and what to try."""
    if ledger.state is SUSPENDED:
        return "The pool is suspended: call resume()."
    if step == ACQUIRE_HOOK:
        return "The acquire hook did not end: see what it waits for, or raise timeout."
    if step == VALIDATING and error is not None and ledger.backoff.last_was_made:
        return (
            f"Validation rejected every new {ledger.noun}, last with {type(error).__name__}, which is "
            "the cause of this error: see what validate() or is_alive() checks."
        )
    if step == VALIDATING:
        return "validate() took or failed until the end: see what it waits for, or raise timeout."
    if error is not None:
        return (
            f"Creating failed {ledger.backoff.failures} times in a row, last with {type(error).__name__}: "
            "that error is the cause of this one."
        )
    if step == CREATING:
        return "create() has not ended: see what it waits for, raise timeout, or bound it by create_timeout."
    if step == QUEUEING and ledger.budget is not None and ledger.budget.hint:
        return ledger.budget.hint
    # Also if others got a place, or are to get it, that seemed to be free.
    by_others = counts.leased is not None and counts.total >= counts.leased and counts.borrowed < counts.max_size
    if short or (step == QUEUEING and by_others):
        where = " here or there" if by_others else ""
        why = "Other processes that share the limit have the places that are missing. " if by_others else ""
        return f"{why}Raise max_total, or {'lower min_size' if fills else 'release sooner'}{where}."
    if counts.borrowed >= counts.max_size:
        return "Release that one sooner or raise max_size."
    return "See whether destroy() hangs, or raise timeout."


def exhausted_error(name: str, key: Any, ledger: Ledger, now: float, *, limit: str) -> PoolExhaustedError:
    """The error for a borrower that may not queue."""
    counts = counts_of(ledger)
    short = is_short(ledger, now)
    found = find_longest_out(name, key, ledger, now, of_all=short)
    if ledger.state is SUSPENDED:
        why, advice = "it is suspended", "Call resume(), or let borrowers wait."
    elif short:
        why = f"nothing idle, no room for one more under max_total={counts.max_total}"
        advice = "Release sooner, raise max_total, or let borrowers wait."
        if ledger.budget is not None:
            advice = ledger.budget.hint or advice
    else:
        why = "nothing idle, no room for one more"
        advice = "Release sooner, raise max_size, or let borrowers wait."
    return PoolExhaustedError(
        f"{title(name, key)}: {why}, and {limit} allows no further waiting (step: {QUEUEING}).\n"
        f"At that moment: {counts}{longest_out(found, ledger, of_all=short)}.\n{advice}",
        pool=name,
        key=key,
        step=QUEUEING,
        counts=counts,
        limit=limit,
        holders=found,
    )


def closed_error(
    name: str, key: Any, ledger: Ledger, *, waited: float, is_off_the_map: bool, step: str = QUEUEING
) -> PoolClosedError:
    """The error for a pool that is stopped."""
    advice = ": its key was closed; ask the keyed service again" if is_off_the_map else ". Call start() to use it again"
    return PoolClosedError(
        f"{title(name, key)} is stopped: nothing can be acquired (step: {step}){advice}.",
        pool=name,
        key=key,
        step=step,
        counts=counts_of(ledger),
        waited=waited,
    )


def create_error(name: str, key: Any, ledger: Ledger, error: BaseException) -> CreateError:
    """The error for a create that failed and is not tried again."""
    if isinstance(error, CreateError):
        said = f": {str(error).removeprefix(f'{title(name, key)}: ').rstrip('.')}"
    else:
        said = f" with {type(error).__name__}: {words_of(error)}"
    return CreateError(
        f"{title(name, key)}: create failed{said}. Trying again would not help (step: {CREATING}).",
        pool=name,
        key=key,
        step=CREATING,
        counts=counts_of(ledger),
    )


def check_error(name: str, key: Any, ledger: Ledger, error: BaseException) -> CreateError:
    """The error for a new resource whose check failed by a mistake in the check."""
    return CreateError(
        f"{title(name, key)}: checking a new {ledger.noun} failed with {type(error).__name__}: {words_of(error)}. "
        f"Trying again would not help (step: {VALIDATING}).",
        pool=name,
        key=key,
        step=VALIDATING,
        counts=counts_of(ledger),
    )


def words_of(error: BaseException) -> str:
    """The first line of an error's own words, without what looks like a credential."""
    lines = str(error).strip().splitlines()
    return _CREDENTIAL.sub(r"\1\2***", lines[0])[:300].rstrip(".") if lines else "no further words"


def not_borrowed_error(name: str, key: Any, ledger: Ledger, value: Any, elsewhere: str | None) -> ReleaseError:
    """The error for a value that was given back and is not out from this pool."""
    what = f"<{type(value).__name__} object at {id(value):#x}>"  # its own repr may hold secrets, or fail
    if any(slot.value is value for slot in list(ledger.slots)):
        why = f"it was given back before. Give a {ledger.noun} back once; `lease()` does"
    elif elsewhere is not None:
        why = f"it is out from {elsewhere}. Give it back there"
    else:
        why = "it is not this pool's, or was destroyed. Give back the very object that acquire() returned, once"
    state = " (the pool is stopped)" if ledger.state is STOPPED else ""
    return ReleaseError(
        f"{title(name, key)}{state}: {what} is not out: {why}.",
        pool=name,
        key=key,
        step="releasing",
        counts=counts_of(ledger),
    )


def release_error(name: str, key: Any, ledger: Ledger, error: BaseException, *, step: str, how: str) -> ReleaseError:
    """The error for a release hook that failed or took too long."""
    return ReleaseError(
        f"{title(name, key)}: the {step} {how} ({type(error).__name__}); the {ledger.noun} was destroyed and its "
        "place is free. That error is the cause of this one.",
        pool=name,
        key=key,
        step=step,
        counts=counts_of(ledger),
    )
