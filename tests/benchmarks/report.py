"""A race's result as a table for people, and all of a run for programs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from typing import Any

from . import peers
from .measure import Metric, Result, Scale, Spread, Target

DISTRIBUTIONS = (
    "psycopg",
    "psycopg-pool",
    "sqlalchemy",
    "generic-connection-pool",
    "connpool",
    "asyncio-connection-pool",
    "dishka",
    "svcs",
    "dependency-injector",
)
OVER = " "


def number(value: float) -> str:
    """Three digits that say something."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(spread: Spread) -> str:
    """`1.23 [1.20–1.30]`, or the one figure where there is no spread."""
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} [{number(spread.low)}–{number(spread.high)}]"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = peers.version(name).rpartition(" ")[2]
        except Exception:  # not installed
            versions[name] = None
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def heading(facts: dict[str, Any], scale: Scale) -> str:
    """The lines above all tables."""
    installed = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    load = "" if facts["load"] is None else f", load {facts['load']:.1f}"
    return (
        f"{facts['implementation']} {facts['python']}, {facts['system']}, {facts['cores']} cores{load}; "
        f"up to {scale.rounds} rounds\n{installed}\n"
        "Median [quartiles]; a ratio is taken within each round. Lower is better, except in a column with ↑."
    )


def table(result: Result) -> str:
    """One race: a row a racer, and what became of its targets."""
    race = result.race
    first = race.metrics[0]
    columns = ["", *(column(metric) for metric in race.metrics)]
    if race.reference is not None:
        columns.append(f"÷ {race.reference}{arrow(first)}")
    rows = [columns]
    ours = {racer.name for racer in race.racers if racer.is_ours}
    for name in result.in_order():
        row = [f"{'▸ ' if name in ours else '  '}{name}"]
        row += [cell(result, name, metric) for metric in race.metrics]
        if race.reference is not None:
            row.append(times(result.ratio(name, race.reference, first.key)))
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    lines = [f"{race.title}   ({race.name})", *wrapped(race.note)]
    for row in rows:
        cells = [
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += [f"  {line}" for line in race.missing]
    lines += verdicts(result)
    return "\n".join(lines)


def cell(result: Result, name: str, metric: Metric) -> str:
    if metric.key not in result.samples[name]:
        return ""
    return times(result.figure(name, metric.key).times(metric.scale))


def column(metric: Metric) -> str:
    """A metric's head of the column."""
    return f"{metric.title}{f' ({metric.unit})' if metric.unit else ''}{arrow(metric)}"


def arrow(metric: Metric) -> str:
    return " ↑" if metric.more_is_better else ""


def relation(metric: Metric) -> str:
    """A figure's relation to its limit where the target is met."""
    return "≥" if metric.more_is_better else "≤"


def wrapped(text: str, width: int = 100) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def verdicts(result: Result) -> list[str]:
    """One line a target."""
    lines = []
    for target in result.race.targets:
        reached = result.reached(target)
        if reached is None:
            continue
        spread, is_met = reached
        metric = result.race.metric(target.metric)
        if target.peer is None:
            spread = spread.times(metric.scale)
        lines.append(f"  {'✓' if is_met else '✗'} {wanted(target, metric)}: {times(spread)}")
    return lines


def wanted(target: Target, metric: Metric) -> str:
    """A target in words."""
    if target.peer is None:
        limit = f"{number(target.limit * metric.scale)} {target.unit or metric.unit}".rstrip()
        return f"{target.ours}: {metric.title} {relation(metric)} {limit}"
    if target.times_faster:
        return f"{target.ours} at least {target.limit:g} × faster than {target.peer}"
    aim = f" (aim {target.aim:g})" if target.aim is not None else ""
    return f"{target.ours} {relation(metric)} {target.limit:g} × {target.peer}{aim}"


def as_json(results: Iterable[Result], facts: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """Every figure of every round, and what became of the targets."""
    races = {}
    for result in results:
        race = result.race
        races[race.name] = {
            "title": race.title,
            "reference": race.reference,
            "metrics": {
                metric.key: {"title": metric.title, "unit": metric.unit, "scale": metric.scale}
                for metric in race.metrics
            },
            "ours": [racer.name for racer in race.racers if racer.is_ours],
            "samples": result.samples,
            "missing": list(race.missing),
            "targets": [
                {
                    "target": wanted(target, race.metric(target.metric)),
                    "value": reached[0].median,
                    "met": reached[1],
                }
                for target in race.targets
                if (reached := result.reached(target)) is not None
            ],
        }
    return {"machine": {**facts, "argv": sys.argv[1:]}, "rounds": scale.rounds, "races": races}
