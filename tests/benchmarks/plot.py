"""All races as one picture of bars: the ratio to the reference, with quartiles, and the targets as lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measure import Metric, Result, Spread
from .report import arrow, column, number, relation

OURS, THEIRS, LIMIT = "#1f6fb4", "#b8bec6", "#c0392b"
ROW, GAP = 0.26, 0.95  # inches for a bar, and for a panel's title and axis


def bars(result: Result) -> tuple[list[tuple[str, Spread, str]], str]:
    """Name, length and label of each bar, and what the length is."""
    race = result.race
    metric = drawn(result)
    rows = []
    for name in result.in_order():
        if metric.key not in result.samples[name]:
            continue
        shown = result.figure(name, metric.key).times(metric.scale)
        length = result.ratio(name, race.reference, metric.key) if race.reference and not race.drawn else shown
        rows.append((name, length, f"{number(shown.median)} {metric.unit}".rstrip()))
    if not race.in_order:
        rows.sort(key=lambda row: row[1].median, reverse=metric.more_is_better)
    return rows, f"÷ {race.reference}{arrow(metric)}" if race.reference and not race.drawn else column(metric)


def drawn(result: Result) -> Metric:
    """What the bars show."""
    return result.race.metric(result.race.drawn) if result.race.drawn else result.race.metrics[0]


def limit(result: Result) -> float | None:
    """Where to draw the line of the first target that is in the terms of the picture."""
    race = result.race
    for target in race.targets:
        if race.drawn is None and target.peer is not None and target.peer == race.reference and not target.times_faster:
            return target.limit
        if race.drawn is not None and target.peer is None and target.metric == race.drawn:
            return target.limit * race.metric(target.metric).scale
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
    height = max(heights) + 0.75
    figure = plt.figure(figsize=(14, height))
    for side, results_of_side in enumerate((left, right)):
        top = height - 1.1
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
    axes.set_yticks(places, [textwrap.fill(name, 38) for name, _, _ in rows], fontsize=7.5)
    axes.invert_yaxis()
    at = limit(result)
    shown = [*lengths, at] if at else lengths  # a target of 0 is the edge anyway
    if min(lengths) > 0 and max(lengths) / min(lengths) > 5:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(lambda value, position: "")  # they would run into each other
        axes.set_xlim(min(shown) / 1.6, max(shown) * 2.6)
    else:
        axes.set_xlim(0, max(shown) * 1.3)
    for place, (_, spread, text) in zip(places, rows, strict=True):
        axes.annotate(text, (spread.high, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
    if at is not None:
        axes.axvline(at, color=LIMIT, linewidth=0.9, linestyle="--")
        axes.annotate(
            f"target {relation(drawn(result))} {at:g}",
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
