"""
Processes that share a limit, a store, and a network between them that loses, repeats and delays messages.

Everything here is the real protocol: the book of the store and the leaseholders of the processes. Only time, messages
and resources are simulated.
"""

from __future__ import annotations

from pooling._engine.lease_book import LONGEST_STEP, Answer, Claim, LeaseBook
from pooling._engine.leaseholder import Leaseholder

TTL = 30.0


def promise(kept: bool, what: str, *facts: object) -> None:
    assert kept, f"{what}: {facts}"


class Process:
    """One process: its leaseholder, and how many resources it has."""

    def __init__(self, name: str, limit: int, holder_type: type[Leaseholder], block: int) -> None:
        self.holder = holder_type(name, limit, ttl=TTL, block=block, idle_after=5.0)
        self.used = 0
        self.demand = 0
        self.limit = 0
        self.is_running = True  # else it is stopped, and may go on later
        self.entered_at = -TTL  # when the store entered its last claim

    def settle(self, now: float) -> None:
        """The pools tell their numbers and take their limit; idle resources above it are destroyed."""
        self.limit = self.holder.settle(self.used, self.demand, now)
        self.holder.needs = self.used + self.demand


class Network:
    """All of it. Times are in seconds of the real clock; the store's differs by `shift`."""

    def __init__(
        self, limit: int, *, book_type: type[LeaseBook] = LeaseBook, holder_type: type[Leaseholder] = Leaseholder
    ) -> None:
        self.limit = limit
        self.book_type = book_type
        self.holder_type = holder_type
        self.now = 1000.0
        self.shift = 0.0
        self.jumped_at = self.lost_at = -TTL
        self.book = book_type()
        self.processes: list[Process] = []
        self.dead: dict[str, float] = {}
        self.claims: list[tuple[Process, Claim]] = []
        self.answers: list[tuple[Process, Claim, Answer]] = []
        self.serial = 0

    def begin(self, block: int = 1) -> Process:
        self.serial += 1
        process = Process(f"p{self.serial}", self.limit, self.holder_type, block)
        self.processes.append(process)
        return process

    # -- what processes do -------------------------------------------------------

    def want(self, process: Process, places: int) -> None:
        process.demand = places
        process.settle(self.now)

    def open(self, process: Process) -> bool:
        """Create a resource as a pool would: below its limit, if the lease permits it; whether it did."""
        if process.used >= process.limit or not process.holder.permits(process.used, self.now):
            return False
        process.used += 1
        process.demand = max(process.demand - 1, 0)
        if self.is_sane(process) and self.lost_at < process.entered_at:
            known = self.book.holders.get(process.holder.name)
            promise(
                known is not None and process.used <= known.places, "the book has each place that is taken", process
            )
        return True

    def close(self, process: Process) -> None:
        process.used = max(process.used - 1, 0)
        process.settle(self.now)

    def close_excess(self, process: Process) -> None:
        process.settle(self.now)
        while process.used > process.limit:
            self.close(process)

    def send(self, process: Process) -> None:
        self.claims.append((process, process.holder.claim(self.now)))

    def crash(self, process: Process) -> None:
        self.processes.remove(process)
        self.dead[process.holder.name] = self.now

    def exchange(self, process: Process) -> None:
        """A claim and its answer, without trouble."""
        process.settle(self.now)
        self.send(process)
        self.enter(len(self.claims) - 1)
        if self.answers:
            self.reach(len(self.answers) - 1)
        process.settle(self.now)

    # -- what the network and the store do ---------------------------------------

    def enter(self, number: int, *, repeats: bool = False) -> None:
        """The store gets a claim, whichever; it may come again."""
        process, claim = self.claims[number] if repeats else self.claims.pop(number)
        answer = self.book.exchange(claim, self.now + self.shift)
        text = self.book.dumps()
        self.book = self.book_type.loads(text)
        promise(self.book.dumps() == text, "a book that is read is the one that was written")
        if answer is not None:
            if claim.turn == process.holder.claim_number:
                process.entered_at = self.now
            self.answers.append((process, claim, answer))

    def reach(self, number: int, *, repeats: bool = False) -> None:
        """A process gets an answer, unless it is dead."""
        process, claim, answer = self.answers[number] if repeats else self.answers.pop(number)
        if process in self.processes:
            process.holder.answered(claim, answer, self.now)

    def lose_book(self) -> None:
        self.book = self.book_type(is_new=False)
        self.lost_at = self.now

    # -- the promises ------------------------------------------------------------

    def is_sane(self, process: Process) -> bool:
        """Whether it renewed its lease in time, if the store's clock has jumped since."""
        return self.jumped_at < process.entered_at or self.now - process.entered_at < (1.0 - LONGEST_STEP) * TTL

    def check(self) -> None:
        promise(self.book.taken <= self.limit, "the store gives no more than the limit", self.book.dumps())
        usable = [
            process.holder.leased
            for process in self.processes
            if process.holder.is_valid(self.now) and self.is_sane(process)
        ]
        promise(sum(usable) <= self.limit, "what processes may use is no more than the limit", usable)
        for process in self.processes:
            promise(process.holder.leased >= 0 and process.holder.wants >= 0, "no number is below zero", process.holder)

    # -- the end -----------------------------------------------------------------

    def calm(self) -> None:
        """No message is lost any more: then dead processes are forgotten within a ttl, and every need is met."""
        self.claims.clear()
        self.answers.clear()
        for process in self.processes:
            process.is_running = True
        self._exchange_all()  # the step of the store's clock until then may be one back, which counts for nothing
        ends_at = self.now + TTL * 1.1 + 1.0
        while self.now < ends_at:
            self.now += TTL * 0.3
            self._exchange_all()
        left = set(self.book.holders) - {process.holder.name for process in self.processes}
        promise(not left, "dead processes are forgotten within a ttl", left)
        for process in self.processes:
            process.demand = 0
            while process.used:
                self.close(process)
        self._exchange_all()
        greedy = self.begin()
        self.want(greedy, self.limit)
        for _ in range(10):
            self._exchange_all()
            self.now += 1.0
        promise(greedy.used == self.limit, "one process gets all places if no other needs any", greedy.used)
        other = self.begin()
        self.want(other, self.limit)
        greedy.demand = self.limit
        served = set()
        for _ in range(10):
            self._exchange_all()
            self.now += 1.0
            served |= {process.holder.name for process in (greedy, other) if process.used}
        promise(len(served) == 2, "of two that need everything each gets something", served)
        if self.limit > 1:  # else they take turns
            shares = sorted([greedy.used, other.used])
            promise(shares[1] - shares[0] <= 1, "two that need everything get the same", shares)
            promise(sum(shares) == self.limit, "no place is left unused", shares)

    def _exchange_all(self) -> None:
        for _ in range(3):
            for process in self.processes:
                self.close_excess(process)
                self.send(process)
                self.enter(0)
                self.reach(0)
                self.close_excess(process)
                while self.open(process):
                    process.settle(self.now)
                self.check()
