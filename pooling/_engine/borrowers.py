"""Who holds the resources of a pool, and who waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..stats import Holder, Waiting
from .call_site import Borrower, line_of, runner_of

if TYPE_CHECKING:
    from .ledger import Ledger
    from .slots import Slot

RELEASE_HOOK, QUEUEING = "release hook", "queueing"


def holder_of(name: str, key: Any, slot: Slot, now: float) -> Holder:
    """The borrower that has the resource of a slot which is out."""
    return _holder(name, key, slot, slot.borrower if slot.noted == slot.uses else None, now - slot.taken_at)


def holders_of(name: str, key: Any, ledger: Ledger, now: float) -> list[Holder]:
    """The borrowers of all resources that count as borrowed."""
    found = []
    for slot in list(ledger.slots):
        if ledger.out.get(id(slot.value)) is slot:
            found.append(holder_of(name, key, slot, now))
            continue
        # Assigned to a borrower or prepared for it by an acquisition, or in a release. What opens, closes or checks
        # a resource has no borrower.
        operation: Any = slot.operation
        borrower, began = getattr(operation, "borrower", None), getattr(operation, "began", now)
        if isinstance(borrower, Borrower):
            found.append(_holder(name, key, slot, borrower, now - began, step=operation.step))
        elif getattr(operation, "releases", False):
            known = slot.borrower if slot.noted == slot.uses else None
            found.append(_holder(name, key, slot, known, now - slot.taken_at, step=RELEASE_HOOK))
    return found


def _holder(name: str, key: Any, slot: Slot, borrower: Borrower | None, since: float, *, step: str = "") -> Holder:
    value = slot.value
    resource = f"{type(value).__name__} {id(value):#x}"
    if borrower is None:
        return Holder(pool=name, key=key, resource=resource, step=step)
    return Holder(
        pool=name,
        key=key,
        resource=resource,
        since=max(since, 0.0),
        request=borrower.request,
        call_site=line_of(borrower),
        runner=runner_of(borrower),
        step=step,
    )


def waiters_of(name: str, key: Any, ledger: Ledger, now: float) -> list[Waiting]:
    """The borrowers in the queues."""
    return [_waiting(name, key, waiter.operation, now) for waiter in ledger.waiters()]


def _waiting(name: str, key: Any, take: Any, now: float) -> Waiting:
    """The borrower of an acquisition."""
    return Waiting(
        pool=name,
        key=key,
        since=max(now - take.began, 0.0),
        left=max(take.deadline - now, 0.0),
        priority=take.priority,
        request=take.borrower.request,
        call_site=line_of(take.borrower),
        runner=runner_of(take.borrower),
    )


def by_age(found: list[Any]) -> list[Any]:
    """Holders or waiters, longest first; those with an unrecorded borrower last."""
    return sorted(found, key=lambda one: -1.0 if one.since is None else one.since, reverse=True)
