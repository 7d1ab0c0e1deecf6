"""Draws a run: connections over time, waits, and what the pools did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Run
    from .story import Story

__all__ = ["draw", "summary"]

COLOURS = ["#2563c4", "#e0a526", "#1d8a4e", "#8e5bb5", "#d1603d", "#5b8fa8", "#7a7a3a", "#c04f86"]
TURN, LOST = "#c6343f", "#c6343f"


def summary(run: Run) -> str:
    """A run in a line."""
    waits = sorted(seconds for _, _, seconds in run.waits)
    kinds: dict[str, int] = {}
    for _, kind, _ in run.events:
        kinds[kind] = kinds.get(kind, 0) + 1
    peak = max((sum(each) for _, each in run.counts), default=0)
    did = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (
        f"{len(waits):,} requests, {len(run.lost)} lost their connection in a query; waits: median "
        f"{1e3 * waits[len(waits) // 2]:.1f} ms, longest {waits[-1]:.2f} s; at most {peak} connections of "
        f"{run.max_total} allowed; {did}"
    )


def draw(story: Story, run: Run, path: Path) -> None:
    """
    Write the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, middle, bottom) = plt.subplots(
        3, 1, sharex=True, figsize=(9.6, 6.4), height_ratios=(3, 2, 1.5), layout="constrained"
    )
    figure.suptitle(story.title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    colours = {user: COLOURS[number % len(COLOURS)] for number, user in enumerate(run.users)}
    _connections(top, run, colours)
    _waits(middle, run, colours)
    _events(bottom, run, colours)
    for axes in (top, middle, bottom):
        for at, _ in run.turns:
            axes.axvline(at, color=TURN, linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for at, name in run.turns:
        top.annotate(name, (at, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
                     fontsize=8, color=TURN, va="top")  # fmt: skip
    bottom.set_xlabel("seconds", fontsize=8)
    bottom.set_xlim(0, max(at for at, _ in run.counts))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _connections(axes: Any, run: Run, colours: dict[str, str]) -> None:
    times = [at for at, _ in run.counts]
    by_user: Sequence[Sequence[int]] = list(zip(*(counts for _, counts in run.counts), strict=True))
    names = [user.partition("@")[0] for user in colours]
    axes.stackplot(times, *by_user, colors=colours.values(), step="post", linewidth=0, labels=names)
    axes.axhline(run.max_total, color="#555555", linestyle="--", linewidth=0.9)
    axes.annotate(
        f"max_total={run.max_total}", (0, run.max_total), xytext=(3, 3), textcoords="offset points", fontsize=8
    )
    axes.set_ylim(0, run.max_total * 1.25)
    axes.set_ylabel("connections,\nby the server's count", fontsize=8)
    axes.legend(fontsize=7, ncols=len(colours), loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def _waits(axes: Any, run: Run, colours: dict[str, str]) -> None:
    axes.scatter(
        [at for at, _, _ in run.waits],
        [max(1e3 * seconds, 0.01) for _, _, seconds in run.waits],
        c=[colours[user] for _, user, _ in run.waits], s=5, linewidths=0,
    )  # fmt: skip
    if run.lost:
        axes.scatter([at for at, _ in run.lost], [1e4] * len(run.lost), c=LOST, marker="x", s=22, linewidths=1.1)
        axes.annotate("× a query lost its connection", (0.995, 0.99), xycoords="axes fraction", fontsize=8, color=LOST,
                      ha="right", va="top")  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(0.01, 2e4)
    axes.set_yticks([0.01, 0.1, 1, 10, 100, 1000, 1e4], ["10 µs", "", "1 ms", "", "100 ms", "1 s", "10 s"])
    axes.set_ylabel("wait for a connection", fontsize=8)


def _events(axes: Any, run: Run, colours: dict[str, str]) -> None:
    kinds = sorted({kind for _, kind, _ in run.events}, key=lambda kind: (kind != "created", kind))
    for at, kind, user in run.events:
        axes.plot(at, kinds.index(kind), "|", color=colours.get(user, "#555555"), markersize=11, markeredgewidth=1.6)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_ylabel("the pools", fontsize=8)
