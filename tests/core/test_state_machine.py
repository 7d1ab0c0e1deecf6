"""Any order of what services, flows and hooks do to a ledger keeps every promise of `world.World`."""

from __future__ import annotations

from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pooling._engine.ledger import Ledger
from pooling.options import PoolingServiceOptions

from .world import World

PRIORITIES = 2
picks = st.integers(0, 5)
seconds = st.sampled_from([0.0, 0.004, 0.05, 0.4, 2.0, 9.0])
sizes = {
    "max_size": st.integers(1, 4),
    "min_size": st.integers(0, 1),
    "lifo": st.booleans(),
    "priorities": st.just(PRIORITIES),
    "max_creating": st.integers(1, 3),
}
times = {
    "max_idle": [3.0, 0.3, 0.0],
    "max_lifetime": [10.0, 3.0, 0.0],
    "validate_idle": [2.0, 0.001],
    "create_timeout": [1.0, 0.0],
    "destroy_timeout": [1.0, 0.0],
    "leak_timeout": [4.0, 0.001],
    "create_backoff": [0.05, 1e-9],
}
unlimited = {
    "max_idle": inf,
    "max_lifetime": inf,
    "validate_idle": None,
    "create_timeout": inf,
    "destroy_timeout": inf,
    "leak_timeout": None,
    "create_backoff": 0.05,
}
some_times = {name: st.sampled_from([unlimited[name], unlimited[name], *values]) for name, values in times.items()}
all_times = {name: st.sampled_from(values) for name, values in times.items()}
settings_of_pools = st.one_of(
    st.fixed_dictionaries({**sizes, **some_times}), st.fixed_dictionaries({**sizes, **all_times})
)


class LedgerMachine(RuleBasedStateMachine):
    ledger_type: type[Ledger] = Ledger

    def __init__(self) -> None:
        super().__init__()
        self.world = World(PoolingServiceOptions())
        self.is_eventful = False  # whether the pool as a whole is changed; half of the runs look at borrowers alone

    @initialize(
        options=settings_of_pools,
        plain=st.sampled_from([True, True, False]),
        watches=st.booleans(),
        jitter=st.sampled_from([0.0, 0.5, 1.0]),
        is_eventful=st.booleans(),
    )
    def found(self, options, plain, watches, jitter, is_eventful):
        self.is_eventful = is_eventful
        plain = plain and options["leak_timeout"] is None
        self.world = World(PoolingServiceOptions(**options), plain, watches, self.ledger_type, jitter)

    # -- borrowers -------------------------------------------------------------

    @rule(priority=st.integers(0, PRIORITIES - 1))
    def acquire(self, priority):
        self.world.see_fast(priority)

    @rule(count=st.integers(1, 4), priority=st.integers(0, PRIORITIES - 1))
    def acquire_at_once(self, count, priority):
        for _ in range(count):
            self.world.see_fast(priority)
            if self.world.seeing_fast:
                self.world.pop_fast(self.world.seeing_fast[-1])
            self.world.check()

    @rule(count=st.integers(1, 3))
    def borrow(self, count):
        """All the way: single steps alone seldom lead as far as a resource in use."""
        world = self.world
        for _ in range(count):
            world.see_fast(0)
        for borrower in [*world.seeing_fast]:
            world.pop_fast(borrower)
        self.background_catches_up()
        for borrower in [borrower for borrower in world.waiting if borrower.is_woken]:
            world.claim(borrower)
        self.lend_all()

    @precondition(lambda self: self.world.seeing_fast)
    @rule(pick=picks)
    def pop_without_the_lock(self, pick):
        self.world.pop_fast(one_of(self.world.seeing_fast, pick))

    @precondition(lambda self: self.world.popped)
    @rule(pick=picks)
    def lend_without_the_lock(self, pick):
        self.world.lend_fast(one_of(self.world.popped, pick))

    @precondition(lambda self: any(borrower.is_woken for borrower in self.world.waiting))
    @rule(pick=picks)
    def claim(self, pick):
        self.world.claim(one_of([borrower for borrower in self.world.waiting if borrower.is_woken], pick))

    @precondition(lambda self: self.world.waiting)
    @rule(pick=picks)
    def withdraw(self, pick):
        self.world.withdraw(one_of(self.world.waiting, pick))

    @precondition(lambda self: self.world.holding or self.world.popped)
    @rule()
    def lend_all(self):
        for borrower in [*self.world.holding]:
            self.world.lend(borrower)
        for borrower in [*self.world.popped]:
            self.world.lend_fast(borrower)

    @precondition(lambda self: self.world.holding)
    @rule(pick=picks)
    def lend(self, pick):
        self.world.lend(one_of(self.world.holding, pick))

    @precondition(lambda self: self.world.holding)
    @rule(pick=picks)
    def put_down(self, pick):
        self.world.put_down(one_of(self.world.holding, pick))

    @precondition(lambda self: self.world.holding)
    @rule(pick=picks, again=st.booleans(), fresh=st.booleans())
    def reject(self, pick, again, fresh):
        self.world.reject(one_of(self.world.holding, pick), again=again, fresh=fresh)

    @precondition(lambda self: self.world.using)
    @rule()
    def give_back_all(self):
        world = self.world
        for borrower in [*world.using]:
            world.release(borrower)
        for borrower in [*world.putting]:
            world.put_fast(borrower)
            world.recheck()
        for borrower in [*world.returning]:
            world.returned(borrower, works=True)

    @precondition(lambda self: self.world.using)
    @rule(pick=picks)
    def release(self, pick):
        self.world.release(one_of(self.world.using, pick))

    @precondition(lambda self: self.world.putting)
    @rule(pick=picks)
    def put_without_the_lock(self, pick):
        self.world.put_fast(one_of(self.world.putting, pick))

    @precondition(lambda self: self.world.rechecking)
    @rule()
    def recheck(self):
        self.world.recheck()

    @precondition(lambda self: self.world.returning)
    @rule(pick=picks, works=st.booleans())
    def release_hook_ends(self, pick, works):
        self.world.returned(one_of(self.world.returning, pick), works=works)

    @precondition(lambda self: self.world.using)
    @rule(pick=picks)
    def discard(self, pick):
        self.world.discard(one_of(self.world.using, pick))

    @precondition(lambda self: self.world.using)
    @rule(pick=picks)
    def become_garbage(self, pick):
        self.world.drop(one_of(self.world.using, pick))

    # -- background --------------------------------------------------------------

    @precondition(lambda self: self.world.ledger.outbox)
    @rule(twice=st.booleans())
    def dispatch(self, twice):
        self.world.dispatch(twice=twice)

    @precondition(lambda self: self.world.creating)
    @rule(pick=picks)
    def create_ends(self, pick):
        self.world.opened(one_of(self.world.creating, pick))

    @precondition(lambda self: self.world.creating)
    @rule(pick=picks, final=st.booleans())
    def create_fails(self, pick, final):
        self.world.open_failed(one_of(self.world.creating, pick), final=final)

    @precondition(lambda self: self.world.creating)
    @rule(pick=picks, final=st.booleans())
    def start_fails(self, pick, final):
        self.world.spoiled(one_of(self.world.creating, pick), final=final)

    @precondition(lambda self: self.world.destroying)
    @rule(pick=picks)
    def destroy_ends(self, pick):
        self.world.closed(one_of(self.world.destroying, pick))

    @precondition(lambda self: self.world.checking)
    @rule(pick=picks, works=st.booleans())
    def check_ends(self, pick, works):
        self.world.checked(one_of(self.world.checking, pick), works=works)

    @rule(seconds=seconds)
    def time_passes(self, seconds):
        self.world.turn(seconds)

    @precondition(lambda self: self.world.ledger.alarm < inf)
    @rule()
    def time_passes_until_the_alarm(self):
        self.world.turn(inf)

    @rule(seconds=st.sampled_from([0.004, 3.0, 40.0, 90_000.0, -2.0]))
    def clock_jumps(self, seconds):
        self.world.jump(seconds)

    @rule()
    def background_catches_up(self):
        world = self.world
        world.dispatch()
        while world.creating or world.destroying:
            if world.creating:
                world.opened(world.creating[0])
            else:
                world.closed(world.destroying[0])
            world.check()
            world.dispatch()

    # -- the pool as a whole -------------------------------------------------------

    @precondition(lambda self: self.is_eventful)
    @rule(
        what=st.sampled_from(["suspend", "resume", "stop", "start", "expire", "retire", "settle"]),
        starts_again=st.booleans(),
    )
    def change_state(self, what, starts_again):
        getattr(self.world.ledger, what)(self.world.now)
        if starts_again:
            self.world.check()
            self.world.ledger.start(self.world.now)
            self.world.ledger.resume(self.world.now)

    @precondition(lambda self: self.is_eventful)
    @rule(min_size=st.integers(0, 3), more=st.integers(0, 3))
    def resize(self, min_size, more):
        self.world.resize(min_size, max(1, min_size + more))

    @invariant()
    def every_promise_is_kept(self):
        self.world.check()

    def teardown(self):
        self.world.calm()


def one_of(choices, pick):
    return choices[pick % len(choices)]


TestLedger = LedgerMachine.TestCase
