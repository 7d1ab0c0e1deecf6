"""Each rule of the lease protocol is needed: without it, a short story breaks a promise of `network.Network`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooling._engine.lease_book import Claim, LeaseBook
from pooling._engine.leaseholder import Leaseholder
from tests.leases.network import TTL, Network, Process


def with_all(network: Network) -> Process:
    """A process that has leased and uses all places."""
    process = network.begin()
    network.want(process, network.limit)
    network.exchange(process)
    while network.open(process):
        process.settle(network.now)
    assert process.used == network.limit
    return process


def another_wants_all(network: Network, *, seconds: int = 0) -> None:
    """Another process asks for all places, and again each second."""
    other = network.begin()
    for _ in range(1 + seconds):
        network.want(other, network.limit)
        network.exchange(other)
        network.check()
        network.now += 1.0


def the_answer_to_a_smaller_claim_is_lost(network: Network) -> None:
    process = with_all(network)
    for _ in range(3):
        network.close(process)
    network.now += 10.0  # long enough to give back what is unused
    process.settle(network.now)
    network.send(process)
    network.enter(0)
    network.answers.clear()
    another_wants_all(network)


def an_answer_comes_after_a_later_claim(network: Network) -> None:
    process = network.begin()
    network.want(process, network.limit)
    network.send(process)
    network.enter(0)
    network.want(process, 0)
    network.send(process)
    network.enter(0)
    network.answers.pop()
    another_wants_all(network)
    network.reach(0)
    network.check()


def a_claim_comes_after_a_later_one(network: Network) -> None:
    process = network.begin()
    network.want(process, 1)
    network.send(process)
    network.want(process, network.limit)
    network.send(process)
    network.enter(1)
    network.reach(0)
    network.enter(0)
    another_wants_all(network)


def a_process_was_stopped_for_long(network: Network) -> None:
    process = with_all(network)
    another_wants_all(network, seconds=int(TTL) + 1)
    network.close(process)
    network.open(process)
    network.check()


def a_lease_shrinks_before_the_pools_know(network: Network) -> None:
    process = with_all(network)
    network.close(process)
    network.now += 10.0
    process.settle(network.now)
    network.exchange(process)
    network.open(process)
    network.check()


def the_stores_clock_jumps(network: Network) -> None:
    with_all(network)
    network.shift = 3600.0
    network.jumped_at = network.now
    network.now += TTL / 3
    another_wants_all(network)


def the_store_loses_its_book(network: Network) -> None:
    with_all(network)
    network.lose_book()
    another_wants_all(network)


def a_process_dies(network: Network) -> None:
    network.crash(with_all(network))
    network.begin()
    network.calm()


class KeepsWhatAnswersGave(Leaseholder):
    __slots__ = ()

    def claim(self, now: float) -> Claim:
        leased = self.leased
        claim = super().claim(now)
        self.leased = leased
        return claim


class TakesLateAnswers(Leaseholder):
    __slots__ = ()

    def answered(self, claim, answer, now):
        super().answered(claim._replace(turn=self.claim_number), answer, now)


class NeverEnds(Leaseholder):
    __slots__ = ()

    def is_valid(self, now):
        return self.leased > 0

    def permits(self, used, now):
        return used < self.leased


class TakesOneMore(Leaseholder):
    __slots__ = ()

    def settle(self, used, demand, now):
        return super().settle(used, demand, now) + 1

    def permits(self, used, now):
        return True


class TakesOldClaims(LeaseBook):
    def exchange(self, claim, now):
        if claim.holder in self.holders:
            self.holders[claim.holder].turn = 0
        return super().exchange(claim, now)


class BelievesTheClock(LeaseBook):
    def exchange(self, claim, now):
        if self.seen_at is not None:
            self.age += max(now - self.seen_at, 0.0)
            self.seen_at = now
        return super().exchange(claim, now)


class GivesAtOnce(LeaseBook):
    def exchange(self, claim, now):
        self.may_miss = False
        return super().exchange(claim, now)


class NeverForgets(LeaseBook):
    def exchange(self, claim, now):
        return super().exchange(claim._replace(ttl=1e9), now)


STORIES = {
    the_answer_to_a_smaller_claim_is_lost: KeepsWhatAnswersGave,
    an_answer_comes_after_a_later_claim: TakesLateAnswers,
    a_claim_comes_after_a_later_one: TakesOldClaims,
    a_process_was_stopped_for_long: NeverEnds,
    a_lease_shrinks_before_the_pools_know: TakesOneMore,
    the_stores_clock_jumps: BelievesTheClock,
    the_store_loses_its_book: GivesAtOnce,
    a_process_dies: NeverForgets,
}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_every_promise_is_kept_if(story: Callable[[Network], None]) -> None:
    story(Network(4))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_without_the_rule_for_it_a_promise_is_broken_if(story: Callable[[Network], None]) -> None:
    planted = STORIES[story]
    kind = "book_type" if issubclass(planted, LeaseBook) else "holder_type"
    with pytest.raises(AssertionError):
        story(Network(4, **{kind: planted}))
