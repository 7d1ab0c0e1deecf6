"""A plan as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import textwrap
from math import inf
from typing import TYPE_CHECKING, Any

from pooling import Histogram

from .limits import direct_connections

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ._planning import Candidate, Plan

COMPUTES = (0.5, 1, 2, 4, 8, 16, 32)  # CU
WIDTH = 80  # of the lines of text; rows of the table may be longer
WAIT, LOGINS, LIMIT, CHOSEN = "#1f6fb4", "#d98a1f", "#8a8f98", "#c0392b"


def as_text(plan: Plan) -> str:
    """The plan for a terminal."""
    question, answer = _wrapped(_question(plan).splitlines()), _wrapped(_answer(plan))
    lines = [*question, "", *_table(plan), "", *answer]
    return "\n".join(lines) + "\n"


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, WIDTH, break_on_hyphens=False, break_long_words=False)


def as_json(plan: Plan) -> str:
    """The plan for a program."""
    chosen = plan.chosen
    answer = {
        "meets_goal": plan.meets_goal,
        "max_total": chosen.max_total,
        "max_size": chosen.max_size,
        "replicas": plan.deployment.replicas,
        "is_shared": plan.deployment.sharing is not None,
        "connections": plan.connections,
        "connection_limit": plan.deployment.connection_limit,
        "compute_units": plan.compute_units,
        "binding": plan.binding,
        "goal": {"share": plan.goal.share, "seconds": plan.goal.seconds},
        "result": chosen.result.as_dict(),
        "others": [
            {"max_total": one.max_total, "max_size": one.max_size, "result": one.result.as_dict()}
            for one in plan.others
        ],
        "fixed": plan.fixed and {"max_total": plan.fixed.max_total, "result": plan.fixed.result.as_dict()},
    }
    return json.dumps(answer, indent=2) + "\n"


def seconds(value: float) -> str:
    """A duration as people write it; an endless wait ends in a timeout."""
    if value == inf:
        return "timeout"
    if value >= 100:
        return f"{value:.0f} s"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def percentile(share: float) -> str:
    """The name of a share: p99 for 0.99."""
    return f"p{share * 100:g}"


def _question(plan: Plan) -> str:
    workload, deployment = plan.workload, plan.deployment
    if workload.rate is not None:
        arrivals = f"{workload.rate:g} requests/s"
    elif workload.workers is not None:
        arrivals = f"{workload.workers} requests at a time"
    else:
        arrivals = f"each waits {_duration(workload.think_time)} between requests"
    processes = "1 process" if deployment.replicas == 1 else f"{deployment.replicas} processes"
    if deployment.sharing is not None:
        sharing = "shares a limit" if deployment.replicas == 1 else "share one limit"
        processes += f" that {sharing} (a claim takes {_duration(deployment.sharing.latency)})"
    users = "1 user" if workload.users == 1 else f"{workload.users:,} users"
    use, login = _duration(workload.use_time), _duration(workload.create_time)
    share, wait = f"{plan.goal.share * 100:g} %", seconds(plan.goal.seconds)
    return (
        f"{users}, {arrivals}; a request uses its connection for {use}, a login takes {login}; "
        f"{processes}.\n"
        f"Goal: {share} of the requests wait at most {wait} for a connection ({percentile(plan.goal.share)})."
    )


def _duration(value: float | Histogram | None) -> str:
    if isinstance(value, Histogram):
        return f"{seconds(value.mean)} (mean of {value.count:,} measured)"
    return seconds(value or 0.0)


def _rows(plan: Plan) -> list[Candidate]:
    return sorted([plan.chosen, *plan.others], key=lambda one: one.max_total)


def _table(plan: Plan) -> Iterator[str]:
    share = plan.goal.share
    yield f"  max_total  connections  requests/s  logins/request  median wait  {percentile(share):>8} wait"
    for one in _rows(plan):
        result = one.result
        mark = ">" if one is plan.chosen else " "
        limits = f"{mark} {one.max_total:9}  {one.max_total * plan.deployment.limits:11}"
        if result.is_complete:
            waits = f"{seconds(result.wait(0.5)):>11}  {seconds(result.wait(share)):>13}"
            rate = 0.0 if result.timeouts == result.requests else result.throughput
            yield f"{limits}  {rate:10.1f}  {result.creates_per_request:14.4f}  {waits}"
        else:
            yield f"{limits}  overloaded"


def _answer(plan: Plan) -> Iterator[str]:
    chosen, result, deployment = plan.chosen, plan.chosen.result, plan.deployment
    each = "" if deployment.limits == 1 else " in each process"
    verdict = "meets" if result.meets(plan.goal) else "misses"
    wait = seconds(result.wait(plan.goal.share)) if result.is_complete else "longer than can be simulated"
    yield (
        f"max_total={chosen.max_total} and max_size={chosen.max_size}{each} {verdict} the goal: "
        f"{percentile(plan.goal.share)} is {wait}, "
        f"{result.mean_size:.1f} connections exist on average, {result.mean_in_use:.1f} of them in use."
    )
    yield from _sharing_lines(plan)
    yield _compute_line(plan)
    yield _binding_line(plan)


def _sharing_lines(plan: Plan) -> Iterator[str]:
    """What it takes to share the limit, and what an equal part for each process would do."""
    result, fixed = plan.chosen.result, plan.fixed
    if plan.deployment.sharing is None:
        return
    claims = result.claims / result.seconds if result.seconds else 0.0
    yield (
        f"Processes ask the store {claims:.1f} times a second in all; no process had more than "
        f"{result.peak_size_of_one} connections."
    )
    if fixed is not None and plan.deployment.replicas > 1:  # one process has all of the limit either way
        wait = fixed.result.wait(plan.goal.share)
        words = seconds(wait) if fixed.result.is_complete else "longer than can be simulated"
        yield (
            f"With max_total={fixed.max_total} for each process in place of the shared limit, "
            f"{percentile(plan.goal.share)} would be {words}, with {fixed.result.creates_per_request:.4f} logins for "
            "each request."
        )


def _compute_line(plan: Plan) -> str:
    connections, deployment = plan.connections, plan.deployment
    if deployment.pooled:
        size = "no compute" if plan.compute_units is None else f"{plan.compute_units:g} CU"
        return (
            f"{connections} of {deployment.connection_limit:,} {deployment.limit_name}; at most "
            f"{plan.chosen.result.peak_in_use} transactions at once, for which {size} has the connections."
        )
    if plan.compute_units is None:
        return f"No compute takes {_direct(connections)}; the largest take {deployment.connection_limit}."
    found = f"The smallest compute that takes {_direct(connections)} has {plan.compute_units:g} CU"
    return f"{found} and takes {direct_connections(plan.compute_units)}."


def _direct(connections: int) -> str:
    return f"{connections} direct connection{'' if connections == 1 else 's'}"


def _binding_line(plan: Plan) -> str:
    if plan.binding:
        return f"Requests wait because of: {', '.join(plan.binding)}."
    result = plan.chosen.result
    if result.mean_wait:
        return "No limit makes requests wait: what they wait for are logins."
    if result.timeouts or not result.is_complete:
        return "Requests fail where no connection is free: their timeout is too short for a login."
    return "No request waits."


def draw(plan: Plan, path: Path) -> None:
    """
    Draw waits and logins over `max_total`, with the limits of the compute sizes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    figure, (waits, logins) = plt.subplots(2, 1, figsize=(8, 6.5), sharex=True, layout="constrained")
    rows = [one for one in _rows(plan) if one.result.is_complete]
    totals = [one.max_total for one in rows]
    for share, style in ((0.5, ":"), (plan.goal.share, "-")):
        label = f"{percentile(share)} wait"
        heights = [one.result.wait(share) * 1e3 for one in rows]
        waits.plot(totals, heights, style, marker="o", markersize=4, color=WAIT, label=label)
    waits.axhline(plan.goal.seconds * 1e3, color=CHOSEN, linewidth=1, linestyle="--", label="goal")
    waits.set_ylabel("wait for a connection (ms)")
    logins.plot(
        totals, [one.result.creates_per_request * 100 for one in rows], "-", marker="o", markersize=4, color=LOGINS
    )
    logins.set_ylabel("logins per 100 requests")
    logins.set_xlabel("max_total" if plan.deployment.limits == 1 else "max_total of each process")
    for axes in (waits, logins):
        axes.set_ylim(bottom=0)
        axes.set_xscale("log")
        axes.axvline(plan.chosen.max_total, color=CHOSEN, linewidth=1, label="chosen")
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    logins.xaxis.set_major_locator(FixedLocator(totals))
    logins.xaxis.set_major_formatter("{x:g}")
    logins.xaxis.set_minor_locator(NullLocator())
    if not plan.deployment.pooled:
        _draw_computes(waits, plan)
    waits.legend(frameon=False, fontsize=8)
    figure.suptitle(_question(plan), fontsize=8, x=0.02, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_computes(axes: Any, plan: Plan) -> None:
    """A line where each compute size takes no more connections, within what is drawn."""
    left, right = axes.get_xlim()
    for size in COMPUTES:
        place = direct_connections(size) / plan.deployment.limits
        if left <= place <= right:
            axes.axvline(place, color=LIMIT, linewidth=0.8, linestyle="-.")
            axes.annotate(
                f"{size:g} CU", (place, 1), xycoords=("data", "axes fraction"), xytext=(3, -9),
                textcoords="offset points", fontsize=7, color=LIMIT,
            )  # fmt: skip
