"""The runs that are drawn: who sends requests, and what happens when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .run import Run

__all__ = ["STORIES", "Story", "Turn"]


@dataclass(frozen=True)
class Turn:
    """Something that happens `at` seconds after the beginning, under this name in the picture."""

    at: float
    name: str
    happen: Callable[[Run], None]


@dataclass(frozen=True)
class Story:
    """
    A run.

    Args:
        title: Above the picture.
        seconds: How long it is.
        arrivals: When each user begins to send requests; the users are as many.
        workers: Requests at once of each user.
        max_total: The budget.
        turns: What happens.
        use: Seconds that a request has its connection.
        pause: Seconds between two requests of a worker.
    """

    title: str
    seconds: float
    arrivals: Sequence[float]
    workers: int
    max_total: int
    turns: Sequence[Turn] = ()
    use: float = 0.02
    pause: float = 0.03


def rotate(run: Run) -> None:
    """The first user comes with another workspace token from now on."""
    user = run.users[0]
    run.tokens[user] = run.lake.add_user(user)


def rotate_all(run: Run) -> None:
    """So do all."""
    for user in run.users:
        run.tokens[user] = run.lake.add_user(user)


def suspend(run: Run) -> None:
    """Scale to zero; the next login wakes it, which takes a second."""
    run.lake.suspend(wake_after=1.0)


def kill(run: Run) -> None:
    """SIGKILL, and a start with crash recovery."""
    run.lake.restart_postgres(crash=True)


STORIES = {
    "budget": Story(
        "Six users share max_total=8; one after the other begins, then they leave",
        seconds=9.0, arrivals=(0.2, 1.2, 2.2, 3.2, 4.2, 5.2), workers=3, max_total=8,
    ),
    "rotation": Story(
        "Three users; one comes with another token, then all do",
        seconds=6.0, arrivals=(0.2, 0.2, 0.2), workers=3, max_total=12,
        turns=[Turn(2.0, "the first user's token is rotated", rotate), Turn(4.0, "all tokens are rotated", rotate_all)],
    ),
    "suspend": Story(
        "The endpoint suspends under load, and wakes up",
        seconds=6.0, arrivals=(0.2, 0.2, 0.2, 0.2), workers=2, max_total=8,
        turns=[Turn(2.0, "the endpoint suspends; a login wakes it within 1 s", suspend)],
    ),
    "kill": Story(
        "Postgres is killed under load, and recovers",
        seconds=6.0, arrivals=(0.2, 0.2, 0.2, 0.2), workers=2, max_total=8,
        turns=[Turn(2.0, "SIGKILL to Postgres", kill)],
    ),
}  # fmt: skip


async def play(story: Story, run: Run) -> None:
    """Let the users of a story send their requests, and let happen what happens."""

    async def turn(each: Turn) -> None:
        await run.until(each.at)
        run.turns.append((run.now(), each.name))
        await asyncio.to_thread(each.happen, run)

    leaves = story.seconds - 1.5
    async with asyncio.TaskGroup() as group:
        for each in story.turns:
            group.create_task(turn(each))
        for number, (user, arrival) in enumerate(zip(run.users, story.arrivals, strict=True)):
            for _ in range(story.workers):
                end = leaves + 0.2 * number
                group.create_task(run.send(user, arrival, end, use=story.use, pause=story.pause))
        await run.until(story.seconds)
