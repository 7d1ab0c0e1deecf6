"""
What an interrupt has left behind: slots in no container and in the hands of no operation.

A signal handler may raise between any two bytecodes, also between taking a slot out of one container and putting it
into the next. No guard at single lines can cover that, so the pool looks: a slot that is twice not found, `AUDIT_EVERY`
apart, is lost. A slot on its way through the fast path is not found either, but only for an instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from .slots import ASSIGNED, Check, Close, Open, Slot, Work

AUDIT_EVERY = 0.2  # seconds between two audits while a borrower waits; a lost slot is replaced after twice that


def find_lost(
    slots: Iterable[Slot], idle: Iterable[Slot], out: Mapping[int, Slot], outbox: Iterable[Work], now: float
) -> tuple[list[Slot], float]:
    """The slots that were not found in this audit nor in an earlier one, and when to look again at the others."""
    idle_now = set(idle)
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
        return False  # its waiter claims it within an instant, or must be woken once more
    if slot.operation is not None:
        return slot.operation.is_under_way
    return slot in idle or slot in ordered or out.get(id(slot.value)) is slot
