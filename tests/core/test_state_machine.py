"""Services, operations and hooks, in any order, keep every promise of `model.Model`."""

from __future__ import annotations

from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pooling._engine.ledger import Ledger
from pooling.options import PoolingServiceOptions

from .model import Model

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
        self.model = Model(PoolingServiceOptions())
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
        self.model = Model(PoolingServiceOptions(**options), plain, watches, self.ledger_type, jitter)

    # -- borrowers -------------------------------------------------------------

    @rule(priority=st.integers(0, PRIORITIES - 1))
    def acquire(self, priority):
        self.model.see_fast(priority)

    @rule(count=st.integers(1, 4), priority=st.integers(0, PRIORITIES - 1))
    def acquire_at_once(self, count, priority):
        for _ in range(count):
            self.model.see_fast(priority)
            if self.model.seeing_fast:
                self.model.pop_fast(self.model.seeing_fast[-1])
            self.model.check()

    @rule(count=st.integers(1, 3))
    def borrow(self, count):
        """All the way: single steps alone seldom lead as far as a resource in use."""
        model = self.model
        for _ in range(count):
            model.see_fast(0)
        for borrower in [*model.seeing_fast]:
            model.pop_fast(borrower)
        self.background_catches_up()
        for borrower in [borrower for borrower in model.waiting if borrower.is_woken]:
            model.claim(borrower)
        self.lend_all()

    @precondition(lambda self: self.model.seeing_fast)
    @rule(pick=picks)
    def pop_without_the_lock(self, pick):
        self.model.pop_fast(one_of(self.model.seeing_fast, pick))

    @precondition(lambda self: self.model.popped)
    @rule(pick=picks)
    def lend_without_the_lock(self, pick):
        self.model.lend_fast(one_of(self.model.popped, pick))

    @precondition(lambda self: any(borrower.is_woken for borrower in self.model.waiting))
    @rule(pick=picks)
    def claim(self, pick):
        self.model.claim(one_of([borrower for borrower in self.model.waiting if borrower.is_woken], pick))

    @precondition(lambda self: self.model.waiting)
    @rule(pick=picks)
    def withdraw(self, pick):
        self.model.withdraw(one_of(self.model.waiting, pick))

    @precondition(lambda self: self.model.holding or self.model.popped)
    @rule()
    def lend_all(self):
        for borrower in [*self.model.holding]:
            self.model.lend(borrower)
        for borrower in [*self.model.popped]:
            self.model.lend_fast(borrower)

    @precondition(lambda self: self.model.holding)
    @rule(pick=picks)
    def lend(self, pick):
        self.model.lend(one_of(self.model.holding, pick))

    @precondition(lambda self: self.model.holding)
    @rule(pick=picks)
    def put_down(self, pick):
        self.model.put_down(one_of(self.model.holding, pick))

    @precondition(lambda self: self.model.holding)
    @rule(pick=picks, again=st.booleans(), fresh=st.booleans())
    def reject(self, pick, again, fresh):
        self.model.reject(one_of(self.model.holding, pick), again=again, fresh=fresh)

    @precondition(lambda self: self.model.using)
    @rule()
    def give_back_all(self):
        model = self.model
        for borrower in [*model.using]:
            model.release(borrower)
        for borrower in [*model.putting]:
            model.put_fast(borrower)
            model.recheck()
        for borrower in [*model.returning]:
            model.returned(borrower, works=True)

    @precondition(lambda self: self.model.using)
    @rule(pick=picks)
    def release(self, pick):
        self.model.release(one_of(self.model.using, pick))

    @precondition(lambda self: self.model.putting)
    @rule(pick=picks)
    def put_without_the_lock(self, pick):
        self.model.put_fast(one_of(self.model.putting, pick))

    @precondition(lambda self: self.model.rechecking)
    @rule()
    def recheck(self):
        self.model.recheck()

    @precondition(lambda self: self.model.returning)
    @rule(pick=picks, works=st.booleans())
    def release_hook_ends(self, pick, works):
        self.model.returned(one_of(self.model.returning, pick), works=works)

    @precondition(lambda self: self.model.using)
    @rule(pick=picks)
    def discard(self, pick):
        self.model.discard(one_of(self.model.using, pick))

    @precondition(lambda self: self.model.using)
    @rule(pick=picks)
    def become_garbage(self, pick):
        self.model.drop(one_of(self.model.using, pick))

    @precondition(lambda self: self.hands)
    @rule(pick=picks)
    def interrupt(self, pick):
        self.model.interrupt(one_of(self.hands, pick))

    @property
    def hands(self):
        model = self.model
        return [*model.popped, *model.holding, *model.putting, *model.returning]

    # -- background --------------------------------------------------------------

    @precondition(lambda self: self.model.ledger.outbox)
    @rule()
    def dispatch(self):
        self.model.dispatch()

    @precondition(lambda self: self.model.creating)
    @rule(pick=picks)
    def create_ends(self, pick):
        self.model.opened(one_of(self.model.creating, pick))

    @precondition(lambda self: self.model.creating)
    @rule(pick=picks, final=st.booleans())
    def create_fails(self, pick, final):
        self.model.open_failed(one_of(self.model.creating, pick), final=final)

    @precondition(lambda self: self.model.creating)
    @rule(pick=picks, final=st.booleans())
    def start_fails(self, pick, final):
        self.model.spoiled(one_of(self.model.creating, pick), final=final)

    @precondition(lambda self: self.model.destroying)
    @rule(pick=picks)
    def destroy_ends(self, pick):
        self.model.closed(one_of(self.model.destroying, pick))

    @precondition(lambda self: self.model.checking)
    @rule(pick=picks, works=st.booleans())
    def check_ends(self, pick, works):
        self.model.checked(one_of(self.model.checking, pick), works=works)

    @rule(seconds=seconds)
    def time_passes(self, seconds):
        self.model.turn(seconds)

    @precondition(lambda self: self.model.ledger.alarm < inf)
    @rule()
    def time_passes_until_the_alarm(self):
        self.model.turn(inf)

    @rule(seconds=st.sampled_from([0.004, 3.0, 40.0, 90_000.0, -2.0]))
    def clock_jumps(self, seconds):
        self.model.jump(seconds)

    @rule()
    def background_catches_up(self):
        model = self.model
        model.dispatch()
        while model.creating or model.destroying:
            if model.creating:
                model.opened(model.creating[0])
            else:
                model.closed(model.destroying[0])
            model.check()
            model.dispatch()

    # -- the pool as a whole -------------------------------------------------------

    @precondition(lambda self: self.is_eventful)
    @rule(
        what=st.sampled_from(["suspend", "resume", "stop", "start", "expire", "retire", "settle"]),
        starts_again=st.booleans(),
    )
    def change_state(self, what, starts_again):
        getattr(self.model.ledger, what)(self.model.now)
        if starts_again:
            self.model.check()
            self.model.ledger.start(self.model.now)
            self.model.ledger.resume(self.model.now)

    @precondition(lambda self: self.is_eventful)
    @rule(min_size=st.integers(0, 3), more=st.integers(0, 3))
    def resize(self, min_size, more):
        self.model.resize(min_size, max(1, min_size + more))

    @invariant()
    def every_promise_is_kept(self):
        self.model.check()

    def teardown(self):
        self.model.calm()


def one_of(choices, pick):
    return choices[pick % len(choices)]


TestLedger = LedgerMachine.TestCase
