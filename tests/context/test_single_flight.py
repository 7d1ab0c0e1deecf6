"""Many callers that wait for one attempt."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pooling import SingleFlight, TaskFlight
from pooling._single_flight import FlightState
from tests.contract.harness import on_asyncio, on_both, on_threads


async def wait(side, flight):
    """Wait as a caller of this front end does; what came of it."""
    await flight.wait_async() if side.name == "asyncio" else flight.wait()
    if flight.error is not None:
        raise flight.error
    return flight.state


def go_waiting(side, flight, number):
    return [side.go(wait, side, flight) for _ in range(number)]


async def settle(side, flight, number):
    """Return when this many callers wait; a caller that is woken before it waits would prove nothing."""
    await side.until(lambda: flight.waiting == number, f"{flight.waiting} of {number} wait")


@on_both
async def test_all_waiters_are_woken_when_the_attempt_succeeds(side):
    flight = SingleFlight()
    waiters = go_waiting(side, flight, 3)
    await settle(side, flight, 3)
    assert not flight.is_over
    flight.succeed("result")
    assert [await waiter.result() for waiter in waiters] == [FlightState.SUCCEEDED] * 3
    assert flight.result == "result"
    assert flight.waiting == 0


@on_both
async def test_a_failure_reaches_all_waiters(side):
    flight, problem = SingleFlight(), OSError("no connection")
    waiters = go_waiting(side, flight, 3)
    await settle(side, flight, 3)
    flight.fail(problem)
    for waiter in waiters:
        with pytest.raises(OSError, match="no connection"):
            await waiter.result()


@on_both
async def test_who_comes_after_the_end_does_not_wait(side):
    flight = SingleFlight()
    flight.succeed(1)
    assert await wait(side, flight) is FlightState.SUCCEEDED


@on_both
async def test_the_first_end_counts(side):
    flight = SingleFlight()
    flight.succeed(1)
    flight.fail(OSError())
    flight.hand_on()
    assert (flight.state, flight.result, flight.error) == (FlightState.SUCCEEDED, 1, None)


@on_both
async def test_an_interrupted_leader_hands_the_lead_to_one_waiter(side):
    flights: dict[str, SingleFlight] = {}
    leads: list[int] = []
    results: list[int] = []
    gate = side.gate()

    async def ask(number):
        while not results:
            flight = flights.setdefault("key", mine := SingleFlight())
            if flight is not mine:
                await wait(side, flight)
                continue
            leads.append(number)
            await gate()
            del flights["key"]
            if len(leads) == 1:
                mine.hand_on()
                return None
            results.append(number)
            mine.succeed(number)
        return results[0]

    callers = [side.go(ask, number) for number in range(4)]
    await gate.reached(1)
    await side.until(lambda: "key" in flights and flights["key"].waiting == 3)
    gate.open()
    answers = [await caller.result() for caller in callers]
    assert len(leads) == 2
    assert answers == [None if number == leads[0] else leads[1] for number in range(4)]


@on_both
async def test_an_interrupted_waiter_leaves_the_others_waiting(side):
    flight = SingleFlight()
    others = go_waiting(side, flight, 2)
    await settle(side, flight, 2)
    await side.interrupted(lambda: wait(side, flight), when=lambda: flight.waiting == 3)
    assert flight.waiting == 2
    flight.succeed(1)
    assert [await other.result() for other in others] == [FlightState.SUCCEEDED] * 2


@on_threads
async def test_a_wait_with_a_timeout_ends_with_the_flight_still_under_way(side):
    flight = SingleFlight()
    flight.wait(0.001)
    flight.wait(-1.0)
    assert not flight.is_over
    assert flight.waiting == 0


def test_threads_and_loops_wait_for_the_same_flight():
    flight: SingleFlight[str] = SingleFlight()
    thread = threading.Thread(target=flight.wait)
    thread.start()

    async def main():
        waiting = asyncio.create_task(flight.wait_async())
        leader = threading.Thread(target=lead)
        leader.start()
        await waiting
        leader.join(20)

    def lead():
        while flight.waiting < 2:
            thread.join(0.001)
        flight.succeed("result")

    asyncio.run(main())
    thread.join(20)
    assert not thread.is_alive()


def test_a_waiter_whose_loop_is_closed_does_not_keep_the_flight_from_ending():
    flight: SingleFlight[str] = SingleFlight()
    left = []

    async def main():
        waiting = flight.wait_async()
        waiting.send(None)  # it waits, and its loop will be closed before it is woken
        left.append(waiting)

    asyncio.run(main())
    flight.succeed("result")
    assert flight.waiting == 0
    left[0].close()


# --- led by a task ---------------------------------------------------------------------------------------------------


class Led:
    """A flight led by a task, in its place."""

    def __init__(self, side, **options):
        self.place: dict[str, TaskFlight] = {}
        self.gate = side.gate()
        self.error: BaseException | None = None
        self.was_cancelled = False
        self.flight = self.place["key"] = TaskFlight(lambda: self.place.pop("key"), **options)

    def begin(self):
        self.flight.begin(self._attempt())
        return self.flight

    async def _attempt(self):
        try:
            await self.gate()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return "result"


@on_asyncio
async def test_a_task_ends_the_flight_it_leads(side):
    led = Led(side)
    flight = led.begin()
    waiters = go_waiting(side, flight, 2)
    await settle(side, flight, 2)
    led.gate.open()
    assert [await waiter.result() for waiter in waiters] == [FlightState.SUCCEEDED] * 2
    assert flight.result == "result"
    assert led.place == {}


@on_asyncio
async def test_an_error_of_the_task_reaches_all_waiters(side):
    led = Led(side)
    led.error = OSError("no connection")
    flight = led.begin()
    waiters = go_waiting(side, flight, 2)
    await settle(side, flight, 2)
    led.gate.open()
    for waiter in waiters:
        with pytest.raises(OSError, match="no connection"):
            await waiter.result()
    assert led.place == {}


@on_asyncio
async def test_a_waiter_that_leaves_does_not_cancel_the_task_and_the_last_one_does(side):
    led = Led(side)
    flight = led.begin()
    first, last = go_waiting(side, flight, 2)
    await settle(side, flight, 2)
    first.cancel()
    await first.ended()
    assert not flight.is_over
    last.cancel()
    await last.ended()
    assert flight.state is FlightState.HANDED_ON
    assert led.place == {}
    await side.until(lambda: led.was_cancelled)


@on_asyncio
async def test_a_task_may_outlive_its_waiters(side):
    led = Led(side, outlives_waiters=True)
    flight = led.begin()
    (only,) = go_waiting(side, flight, 1)
    await settle(side, flight, 1)
    only.cancel()
    await only.ended()
    assert led.place == {"key": flight}
    led.gate.open()
    await flight.wait_async()
    assert flight.result == "result"


@on_asyncio
async def test_an_error_that_no_caller_waited_for_is_not_reported_as_lost(side):
    led = Led(side, outlives_waiters=True)
    led.error = OSError("no connection")
    flight = led.begin()
    led.gate.open()
    await side.until(lambda: flight.is_over)
    assert led.place == {}


@on_asyncio
async def test_a_task_that_is_cancelled_before_its_first_step_ends_its_flight(side):
    led = Led(side)
    flight = led.begin()
    waiters = go_waiting(side, flight, 1)
    task = flight.cancel(LookupError("not wanted"))
    with pytest.raises(LookupError, match="not wanted"):
        await waiters[0].result()
    await asyncio.wait([task])
    assert task.cancelled()


@on_asyncio
async def test_who_cancels_the_task_from_outside_fails_the_flight(side):
    led = Led(side)
    flight = led.begin()
    await led.gate.reached(1)
    (task,) = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    task.cancel()
    await flight.wait_async()
    assert isinstance(flight.error, asyncio.CancelledError)
    assert led.place == {}


def test_the_last_waiter_may_leave_from_another_loop():
    places: dict[str, TaskFlight] = {}
    is_begun, was_cancelled = threading.Event(), threading.Event()

    async def attempt():
        is_begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    async def lead():
        flight = places["key"] = TaskFlight(lambda: places.pop("key", None))
        flight.begin(attempt())
        while not was_cancelled.is_set():
            await asyncio.sleep(0)

    async def leave():
        waiting = asyncio.create_task(places["key"].wait_async())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    leader = threading.Thread(target=asyncio.run, args=(lead(),), daemon=True)
    leader.start()
    assert is_begun.wait(20)
    asyncio.run(leave())
    leader.join(20)
    assert was_cancelled.is_set()
    assert places == {}
