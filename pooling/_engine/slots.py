"""
The parts of a ledger's state: slots, waiters, and the work that the ledger orders.

The states of a slot, the container that has it, and the method that moves it to the next state:

    state      where it stands            moved by
    OPENING    slots, opening             opened -> IDLE | open_failed -> GONE | sweep -> LATE
    LATE       slots, late                opened -> IDLE | open_failed -> GONE
    IDLE       slots, idle                take -> HELD | settle -> ASSIGNED | condemn -> CLOSING
    ASSIGNED   slots, waiter.slot         claim -> HELD | withdraw -> IDLE
    HELD       slots, slot.operation      lend -> OUT | give_back -> IDLE | condemn -> CLOSING | sweep -> OVERDUE
    OUT        slots, out                 reclaim -> HELD
    OVERDUE    slot.operation             give_back -> CLOSING | condemn -> CLOSING
    CLOSING    slots, closing             closed -> GONE
    GONE       nowhere

The lock-free fast path of a service moves slots between `IDLE` and `OUT` without touching `Slot.state`. So these two
and `HELD` have one value of `SlotState`, `LIVE` (the resource exists and may be lent); the container or the operation
that has the slot tells them apart. A slot whose destroy is overdue loses its place and stays `CLOSING`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, NamedTuple, Protocol


class SlotState(Enum):
    """What has happened to the resource in a slot."""

    OPENING = "opening"  # it is being created
    LATE = "late"  # its create is overdue and still running
    LIVE = "live"  # it exists and may be lent
    ASSIGNED = "assigned"  # it is reserved for a waiter, which has not claimed it yet
    OVERDUE = "overdue"  # its release hook is overdue: its place is free, and it is destroyed when the hook ends
    CLOSING = "closing"  # it is to be destroyed, or is being destroyed; overdue, it has no place any more
    GONE = "gone"  # it was destroyed, or was never made


OPENING, LATE, LIVE, ASSIGNED, OVERDUE, CLOSING, GONE = SlotState


class Operation(Protocol):
    """An operation of several steps, which may hold a slot or wait for one."""

    @property
    def is_under_way(self) -> bool:
        """Whether it has begun and has not ended. An interrupt may end it at any bytecode."""


class Slot:
    """One place in a pool and the resource in it. The pool sets no attributes on the resource itself."""

    __slots__ = (
        # Identity and state. Written under the pool's lock.
        "state",
        "operation",
        "waiter",
        "serial",
        "generation",
        "home",
        "value",
        "hooks",
        # Use. `uses` is written by the borrower, also on the fast path.
        "uses",
        "turns",
        "idle_since",
        "idle_uses",
        "is_checked",
        # The latest borrower that was recorded.
        "noted",
        "taken_at",
        "borrower",
        # End of life.
        "born_at",
        "made_in",
        "expires_at",
        "due",
        "reason",
        "failures",
        "missing_since",
        "missing_uses",
    )

    def __init__(self, generation: int, serial: int, now: float) -> None:
        self.state: SlotState = OPENING
        self.operation: Operation | None = None  # the operation that holds it; for the audit
        self.waiter: Waiter | None = None  # while it is ASSIGNED
        self.serial = serial
        self.generation = generation
        self.home: Any = None  # its ledger; set only under a budget, so that a pool without one has no reference cycle
        self.value: Any = None
        self.hooks: Any = None
        self.uses = 0
        self.turns = 0  # borrowers served while another ledger was waiting for a place
        self.idle_since = now  # as of the last sweep that saw `idle_uses` acquisitions
        self.idle_uses = -1
        self.is_checked = False  # whether it was taken from the idle ones only to be validated
        self.noted = -1  # the value of `uses` that the next two describe; the fast path may not record later ones
        self.taken_at = now
        self.borrower: Any = None
        self.born_at = now
        self.made_in = 0.0  # seconds that its create took
        self.expires_at = inf
        self.due = inf  # when the step under way counts as overdue
        self.reason = ""
        self.failures = 0  # creates that failed in a row before this one
        self.missing_since = inf  # when an audit first found it in no container
        self.missing_uses = 0


class Waiter:
    """One borrower in the queue. Exactly one of `slot` and `verdict` is set when it is woken."""

    __slots__ = ("latch", "operation", "priority", "serial", "since", "slot", "verdict")

    def __init__(self, latch: Any, priority: int = 0, operation: Operation | None = None) -> None:
        self.latch = latch
        self.priority = priority
        self.operation = operation
        self.serial = 0  # number of the last create ordered when it queued
        self.since = inf  # when it queued first
        self.slot: Slot | None = None
        self.verdict: str | BaseException | None = None  # "closed", or a final create error

    @property
    def is_settled(self) -> bool:
        return self.slot is not None or self.verdict is not None


class Watcher(Waiter):
    """One caller that waits for a state of the pool, not for a resource."""

    __slots__ = ("is_met",)

    def __init__(self, latch: Any, is_met: Callable[[], bool], operation: Operation | None = None) -> None:
        super().__init__(latch, operation=operation)
        self.is_met = is_met


class Open(NamedTuple):
    """Create a resource for this slot."""

    slot: Slot


class Close(NamedTuple):
    """Destroy the resource of this slot."""

    slot: Slot
    what: str = "close"  # without it, a `Close` and a `Check` of one slot would be equal


class Check(NamedTuple):
    """Validate the resource of this slot."""

    slot: Slot
    what: str = "check"


class Wake(NamedTuple):
    """Wake this waiter."""

    waiter: Waiter


class Leak(NamedTuple):
    """Report that the resource of this slot has been out for too long."""

    slot: Slot
    what: str = "leak"


class Overdue(NamedTuple):
    """Report that a hook has not ended in its time."""

    slot: Slot
    step: str


Work = Open | Close | Check | Wake | Leak | Overdue
