"""
Finds the slots that an interrupt has left behind: in no container, and held by no running operation.

A signal handler may raise between any two bytecodes, also after a slot was taken out of one container and before it
is put into the next. No guard around single lines covers that, so the pool searches for lost slots: a slot counts as
lost if two audits, `AUDIT_EVERY` apart, do not find it. The fast path, too, holds a slot in no container, but only for
an instant, so two audits in a row do not miss it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from .slots import ASSIGNED, Check, Close, Open, Slot, Work

AUDIT_EVERY = 0.2  # seconds between two audits while a borrower waits; a lost slot is replaced after twice that


def find_lost(
    slots: Iterable[Slot], idle: list[Slot], out: Mapping[int, Slot], outbox: Iterable[Work], now: float
) -> tuple[list[Slot], float]:
    """Return the slots that neither this audit nor an earlier one has found, and when to audit the others again."""
    idle_now = set(idle.copy())  # in one step, since borrowers change it meanwhile
    ordered = {item.slot for item in list(outbox) if isinstance(item, (Open, Close, Check))}
    lost: list[Slot] = []
    again_at = inf
    for slot in slots:
        if _is_accounted_for(slot, idle_now, out, ordered):
            slot.missing_since = inf
        elif slot.missing_since > now or slot.missing_uses != slot.uses:
            slot.missing_since, slot.missing_uses = now, slot.uses
            again_at = min(again_at, now + AUDIT_EVERY)
        elif now >= slot.missing_since + AUDIT_EVERY:
            slot.missing_since = inf
            lost.append(slot)
        else:
            again_at = min(again_at, slot.missing_since + AUDIT_EVERY)
    return lost, again_at


def _is_accounted_for(slot: Slot, idle: set[Slot], out: Mapping[int, Slot], ordered: set[Slot]) -> bool:
    if slot.state is ASSIGNED:
        return False  # its waiter claims it within an instant; if it does not, `_recover` wakes it again
    operation = slot.operation  # read once: a borrower that got the slot clears it without the lock
    if operation is not None:
        return operation.is_under_way
    return slot in idle or slot in ordered or out.get(id(slot.value)) is slot
