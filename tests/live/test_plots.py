"""The pictures of real runs: what they are drawn from is measured, and a picture comes out."""

import asyncio
import threading

import pytest

from tests.live.plots.draw import draw, summary
from tests.live.plots.run import Run
from tests.live.plots.story import Story, Turn, rotate


@pytest.fixture
def run(lakebase_local):
    return Run(lakebase_local, ["plot1@corp.example", "plot2@corp.example"], max_total=3)


def rotate_when_served(run):
    """As `rotate`, once the user has had a connection with the first token."""
    again = threading.Event()
    while not any(user == run.users[0] for _, user, _ in run.waits):
        again.wait(0.01)
    rotate(run)


def test_a_run_is_recorded_and_drawn(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    turns = [Turn(0.3, "the first user's token is rotated", rotate_when_served)]
    story = Story("two users", seconds=3.0, arrivals=(0.0, 0.0), workers=2, max_total=3, turns=turns, pause=0.01)
    asyncio.run(run.play(story))
    totals = [sum(each) for _, each in run.counts]
    assert 0 < max(totals) <= 3, "the server never counts more than the budget"
    created = [user for _, kind, user in run.events if kind == "created"]
    assert set(created) == set(run.users)
    assert created.count(run.users[0]) > 1, "another token logs in anew"
    assert [name for _, name in run.turns] == [turns[0].name]
    assert not run.lost
    assert {user for _, user, _ in run.waits} == set(run.users)
    draw(story, run, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert summary(run).startswith(f"{len(run.waits):,} requests, 0 lost")
