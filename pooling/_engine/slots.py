"""
What a ledger keeps its state in: slots, waiters, and the work it asks for.

Where a slot can be, and what moves it on:

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

`IDLE` and `OUT` are where the lock-free fast path of a service moves slots to and fro without touching `state`. For
these, and for `HELD`, the container or the operation says which one it is, and `state` is `LIVE`: the resource
exists and may be lent. A slot whose destroy is overdue loses its place and stays `CLOSING`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, NamedTuple, Protocol


class SlotState(Enum):
    """What is known of the resource in a slot."""

    OPENING = "opening"  # it is being created
    LATE = "late"  # its create is overdue and still running
    LIVE = "live"  # it exists and may be lent
    ASSIGNED = "assigned"  # it waits for the waiter that it was assigned to
    OVERDUE = "overdue"  # its release hook is overdue: its place is free, and it is closed when the hook ends
    CLOSING = "closing"  # it is to be destroyed, or is being destroyed; overdue, it has no place any more
    GONE = "gone"  # it was destroyed, or was never made


OPENING, LATE, LIVE, ASSIGNED, OVERDUE, CLOSING, GONE = SlotState


class Operation(Protocol):
    """What may hold a slot or wait for one: an operation of several steps."""

    @property
    def is_under_way(self) -> bool:
        """Whether it has begun and has not ended; an interrupt ends it at any bytecode."""


class Slot:
    """One place in a pool and the resource in it. All that a pool knows of a resource is here; nothing is on it."""

    __slots__ = (
        # What it is. Written under the pool's lock.
        "state",
        "operation",
        "waiter",
        "serial",
        "generation",
        "home",
        "value",
        "hooks",
        # Its use. `uses` is written by the borrower, also on the fast path.
        "uses",
        "turns",
        "idle_since",
        "idle_uses",
        # Its latest borrower, as far as noted.
        "noted",
        "taken_at",
        "code",
        "lasti",
        "stack",
        # Its end.
        "born_at",
        "expires_at",
        "due",
        "reason",
        "failures",
        "missing_since",
        "missing_uses",
    )

    def __init__(self, generation: int, serial: int, now: float) -> None:
        self.state: SlotState = OPENING
        self.operation: Operation | None = None  # in whose hands it is; for the audit
        self.waiter: Waiter | None = None  # while it is ASSIGNED
        self.serial = serial
        self.generation = generation
        self.home: Any = None  # its ledger, set only under a budget: a pool without one is to be free of cycles
        self.value: Any = None
        self.hooks: Any = None
        self.uses = 0
        self.turns = 0  # borrowers served while another ledger was waiting for a place
        self.idle_since = now  # as of the last sweep that saw `idle_uses` acquisitions
        self.idle_uses = -1
        self.noted = -1  # the use that the next four are about; the fast path may have skipped later ones
        self.taken_at = now
        self.code: Any = None
        self.lasti = 0
        self.stack: Any = None
        self.born_at = now
        self.expires_at = inf
        self.due = inf  # when the step under way counts as overdue
        self.reason = ""
        self.failures = 0  # creates failed in a row before it
        self.missing_since = inf  # when an audit did not find it anywhere
        self.missing_uses = 0


class Waiter:
    """One borrower in the queue. Exactly one of `slot` and `verdict` is set when it is woken."""

    __slots__ = ("latch", "operation", "priority", "serial", "slot", "verdict")

    def __init__(self, latch: Any, priority: int = 0, operation: Operation | None = None) -> None:
        self.latch = latch
        self.priority = priority
        self.operation = operation
        self.serial = 0  # number of the last open ordered when it queued
        self.slot: Slot | None = None
        self.verdict: str | BaseException | None = None  # "closed", or a final create error

    @property
    def is_settled(self) -> bool:
        return self.slot is not None or self.verdict is not None


class Watcher(Waiter):
    """Waits for a state of the pool, not for a resource."""

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
    what: str = "close"  # tuples of one slot would equal each other


class Check(NamedTuple):
    """Validate the resource of this slot."""

    slot: Slot
    what: str = "check"


class Wake(NamedTuple):
    """Wake this waiter."""

    waiter: Waiter


class Leak(NamedTuple):
    """Report that the resource of this slot is out for too long."""

    slot: Slot
    what: str = "leak"


class Overdue(NamedTuple):
    """Report that a hook has not ended in its time."""

    slot: Slot
    step: str


Work = Open | Close | Check | Wake | Leak | Overdue
