"""Processes, a store and a bad network, in any order of events: the limit holds, and no place is lost for longer."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.leases.network import TTL, Network, Process

NUMBER = st.integers(0, 50)


class LeaseMachine(RuleBasedStateMachine):
    @initialize(limit=st.integers(1, 12), processes=st.integers(1, 4), block=st.integers(1, 4))
    def begin(self, limit: int, processes: int, block: int) -> None:
        self.network = Network(limit)
        for _ in range(processes):
            self.network.begin(block)

    def running(self, number: int) -> Process | None:
        processes = [process for process in self.network.processes if process.is_running]
        return processes[number % len(processes)] if processes else None

    # -- processes

    @rule(number=NUMBER, places=st.integers(0, 12))
    def want(self, number: int, places: int) -> None:
        if process := self.running(number):
            self.network.want(process, places)

    @rule(number=NUMBER, times=st.integers(1, 12))
    def open(self, number: int, times: int) -> None:
        if process := self.running(number):
            for _ in range(times):
                self.network.open(process)

    @rule(number=NUMBER)
    def close(self, number: int) -> None:
        if process := self.running(number):
            self.network.close(process)

    @rule(number=NUMBER, closes=st.booleans())
    def settle(self, number: int, closes: bool) -> None:
        if process := self.running(number):
            if closes:
                self.network.close_excess(process)
            else:
                process.settle(self.network.now)

    @rule(number=NUMBER)
    def send(self, number: int) -> None:
        if process := self.running(number):
            self.network.send(process)

    @rule(number=NUMBER)
    def exchange(self, number: int) -> None:
        """A claim and its answer, without trouble."""
        if process := self.running(number):
            self.network.exchange(process)

    @rule(number=NUMBER)
    def fail(self, number: int) -> None:
        if process := self.running(number):
            process.holder.failed(self.network.now)

    @rule(number=NUMBER)
    def stop_or_go_on(self, number: int) -> None:
        process = self.network.processes[number % len(self.network.processes)]
        process.is_running = not process.is_running

    @rule(number=NUMBER, block=st.integers(1, 4))
    def crash(self, number: int, block: int) -> None:
        self.network.crash(self.network.processes[number % len(self.network.processes)])
        self.network.begin(block)

    # -- network

    @precondition(lambda self: self.network.claims)
    @rule(number=NUMBER, repeats=st.booleans())
    def enter(self, number: int, repeats: bool) -> None:
        self.network.enter(number % len(self.network.claims), repeats=repeats)

    @precondition(lambda self: self.network.answers)
    @rule(number=NUMBER, repeats=st.booleans())
    def reach(self, number: int, repeats: bool) -> None:
        self.network.reach(number % len(self.network.answers), repeats=repeats)

    @precondition(lambda self: self.network.claims)
    @rule(number=NUMBER)
    def lose_claim(self, number: int) -> None:
        del self.network.claims[number % len(self.network.claims)]

    @precondition(lambda self: self.network.answers)
    @rule(number=NUMBER)
    def lose_answer(self, number: int) -> None:
        del self.network.answers[number % len(self.network.answers)]

    # -- time, and the store

    @rule(seconds=st.sampled_from([0.01, 1.0, TTL / 3, TTL * 0.6, TTL * 0.95, TTL * 3]))
    def wait(self, seconds: float) -> None:
        self.network.now += seconds

    @rule(seconds=st.sampled_from([-3600.0, -TTL, TTL * 0.5, TTL, 3600.0]))
    def jump(self, seconds: float) -> None:
        network = self.network
        if network.now - max(network.jumped_at, network.lost_at) > TTL:
            network.shift += seconds
            network.jumped_at = network.now

    @rule()
    def lose_book(self) -> None:
        network = self.network
        if network.now - network.jumped_at > TTL:
            network.lose_book()

    @invariant()
    def check(self) -> None:
        if hasattr(self, "network"):
            self.network.check()

    def teardown(self) -> None:
        if hasattr(self, "network"):
            self.network.calm()


TestLeases = LeaseMachine.TestCase


def test_a_dead_process_is_forgotten_in_time_after_the_clock_was_set_back():
    network = Network(1)
    process = network.begin()
    network.want(process, 1)
    network.exchange(process)
    network.shift -= 3600.0
    network.jumped_at = network.now
    network.crash(process)
    network.begin()
    network.calm()
