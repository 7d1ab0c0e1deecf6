"""All races as one picture of bars: the ratio to the reference, with quartiles, and the targets as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import Metric, Result, Spread
from .report import number

OURS, THEIRS, LIMIT = "#1f6fb4", "#b8bec6", "#c0392b"
ROW, GAP = 0.26, 0.95  # inches for a bar, and for a panel's title and axis


def bars(result: Result) -> tuple[list[tuple[str, Spread, str]], str]:
    """Name, length and label of each bar, best first, and what the length is."""
    race = result.race
    metric: Metric = race.metrics[1] if race.reference is None and len(race.metrics) > 1 else race.metrics[0]
    rows = []
    for name in result.samples:
        figure = result.figure(name, metric.key)
        text = f"{number(figure.median * metric.scale)} {metric.unit}"
        if race.reference is not None:
            rows.append((name, result.ratio(name, race.reference, metric.key), text))
        else:
            rows.append(
                (
                    name,
                    Spread(figure.median * metric.scale, figure.low * metric.scale, figure.high * metric.scale),
                    text,
                )
            )
    rows.sort(key=lambda row: row[1].median)
    return rows, f"÷ {race.reference}" if race.reference is not None else f"{metric.title} ({metric.unit})"


def limit(result: Result) -> float | None:
    """Where to draw the line of a target that is a multiple of the reference."""
    for target in result.race.targets:
        if target.peer is not None and target.peer == result.race.reference and not target.times_faster:
            return target.limit
    return None


def write(results: Sequence[Result], path: Path, subtitle: str) -> None:
    """
    Draw the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results = [result for result in results if result.samples]
    left, right = columns(results)
    heights = [sum(GAP + ROW * len(result.samples) for result in side) for side in (left, right)]
    height = max(heights) + 0.5
    figure = plt.figure(figsize=(14, height))
    for side, results_of_side in enumerate((left, right)):
        top = height - 0.75
        for result in results_of_side:
            tall = ROW * len(result.samples)
            axes = figure.add_axes((0.19 + 0.5 * side, (top - tall) / height, 0.27, tall / height))
            panel(axes, result)
            top -= tall + GAP
    figure.text(0.01, 1 - 0.12 / height, subtitle, fontsize=8, va="top", color="#555555")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def columns(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """In order, cut where both sides are about as high."""
    total = sum(GAP + ROW * len(result.samples) for result in results)
    left: list[Result] = []
    height = 0.0
    for result in results:
        if height >= total / 2 - 0.5 * (GAP + ROW * len(result.samples)):
            break
        left.append(result)
        height += GAP + ROW * len(result.samples)
    return left, list(results[len(left) :])


def panel(axes: Any, result: Result) -> None:
    rows, unit = bars(result)
    ours = {racer.name for racer in result.race.racers if racer.is_ours}
    lengths = [spread.median for _, spread, _ in rows]
    spans = [
        [max(spread.median - spread.low, 0) for _, spread, _ in rows],
        [max(spread.high - spread.median, 0) for _, spread, _ in rows],
    ]
    places = range(len(rows))
    colors = [OURS if name in ours else THEIRS for name, _, _ in rows]
    axes.barh(places, lengths, xerr=spans, color=colors, height=0.72, error_kw={"elinewidth": 0.8, "ecolor": "#333333"})
    axes.set_yticks(places, [name for name, _, _ in rows], fontsize=7.5)
    axes.invert_yaxis()
    if min(lengths) > 0 and max(lengths) / min(lengths) > 5:
        axes.set_xscale("log")
        axes.set_xlim(min(lengths) / 1.6, max(lengths) * 2.6)
    else:
        axes.set_xlim(0, max(lengths) * 1.3)
    for place, (_, spread, text) in zip(places, rows, strict=True):
        axes.annotate(text, (spread.high, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
    at = limit(result)
    if at is not None:
        axes.axvline(at, color=LIMIT, linewidth=0.9, linestyle="--")
        axes.annotate(
            f"target ≤ {at:g}",
            (at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize=6.5,
            color=LIMIT,
        )
    axes.set_title(result.race.title, fontsize=9, loc="left", pad=12, fontweight="bold")
    axes.set_xlabel(unit, fontsize=7, labelpad=1)
    axes.tick_params(axis="x", labelsize=7, pad=1)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
