"""`lakebase plan`: says how many connections a load needs, by simulating the pools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pooling import ConfigurationError, Histogram, PoolingServiceOptions
from pooling.extras import install_command
from pooling.simulation import Sharing, WaitGoal, Workload

from ._plan_report import as_json, as_text, draw
from ._planning import Deployment, make_plan

if TYPE_CHECKING:
    from ._planning import Plan, Progress

__all__ = ["add_arguments", "main"]

_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_STORES = {"files": Sharing.files, "redis": Sharing.redis, "postgres": Sharing.postgres}
_WARM_UP = 3  # one in so many requests is simulated before the numbers count,
_MOST_WARM_UP = 50_000  # but not more: any pools are full by then


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    load = parser.add_argument_group("load")
    load.add_argument("--users", type=_whole, required=True, metavar="N", help="users; each has its own connections")
    comes = load.add_mutually_exclusive_group(required=True)
    comes.add_argument("--rate", type=_number, metavar="R", help="requests per second, independent of each other")
    comes.add_argument("--think", type=_duration, metavar="TIME", help="how long a user waits between two requests")
    comes.add_argument("--workers", type=_whole, metavar="N", help="requests under way all the time, as in a load test")
    load.add_argument(
        "--skew", type=_number, default=0.0, metavar="S",
        help="exponent of a Zipf distribution of the requests over the users (default: 0, all alike)",
    )  # fmt: skip
    load.add_argument(
        "--use", type=_duration, default=0.005, metavar="TIME",
        help="how long a request has its connection (default: 5ms)",
    )  # fmt: skip
    load.add_argument(
        "--login", type=_duration, default=0.06, metavar="TIME", help="how long a login takes (default: 60ms)"
    )
    load.add_argument(
        "--requests", type=_whole, default=20_000, metavar="N",
        help="requests to simulate, a third of them to warm up (default: 20000)",
    )  # fmt: skip
    app = parser.add_argument_group("app and endpoint")
    app.add_argument("--replicas", type=_whole, default=1, metavar="N", help="processes with pools (default: 1)")
    app.add_argument("--sticky", action="store_true", help="all requests of a user go to one process")
    app.add_argument(
        "--store", choices=sorted(_STORES), help="all processes share one limit (SharedBudget), in this store"
    )
    app.add_argument("--store-latency", type=_duration, metavar="TIME", help="from a claim to the store's answer")
    app.add_argument("--block", type=_whole, metavar="N", help="places that a process leases at a time")
    app.add_argument(
        "--max-total", type=_whole, metavar="N", help="of one process, or of all with --store; the smallest is searched"
    )
    app.add_argument("--max-size", type=_whole, metavar="N", help="of one user; the smallest is searched")
    app.add_argument(
        "--max-idle", type=_duration, default=30.0, metavar="TIME", help="idle connections are kept for (default: 30s)"
    )
    app.add_argument(
        "--timeout", type=_duration, default=30.0, metavar="TIME", help="a request waits at most (default: 30s)"
    )
    app.add_argument("--compute", type=_number, metavar="CU", help="upper end of the range; the smallest is searched")
    app.add_argument("--pooled", action="store_true", help="through the built-in pooler")
    output = parser.add_argument_group("goal and output")
    output.add_argument(
        "--goal", type=_goal, default=WaitGoal(0.99, 0.1), metavar="pXX=TIME",
        help="so many per cent of the requests wait no longer (default: p99=100ms)",
    )  # fmt: skip
    output.add_argument("--seed", type=int, default=1, metavar="N", help="of the random numbers (default: 1)")
    output.add_argument("--json", action="store_true", help="print JSON in place of the table")
    output.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw waits and logins over max_total: .png, .svg, .pdf"
    )
    parser.epilog = (
        "For example: lakebase plan --users 200 --rate 40 --use 5ms --goal p99=100ms. "
        "TIME is 5ms, 0.3s or 2min; for --think, --use, --login and --store-latency also a measured histogram: "
        "10ms:900,20ms:80,100ms:20 is 900 times up to 10 ms, then 80 times up to 20 ms, ..."
    )


def main(arguments: argparse.Namespace, out: TextIO | None = None, progress_to: TextIO | None = None) -> int:
    """Print a plan; returns 0 if it meets the goal, 1 if no plan does, and 2 if the arguments cannot work."""
    stream, screen = out or sys.stdout, progress_to or sys.stderr
    try:
        if arguments.plot is not None:
            _check_plot(arguments.plot)
        plan = _planned(arguments, screen)
    except (ConfigurationError, ImportError) as error:
        screen.write(f"lakebase plan: {error}\n")
        return 2
    stream.write(as_json(plan) if arguments.json else as_text(plan))
    if arguments.plot is not None:
        draw(plan, arguments.plot)
        screen.write(f"drawn: {arguments.plot}\n")
    return 0 if plan.meets_goal else 1


def _planned(arguments: argparse.Namespace, screen: TextIO) -> Plan:
    warm_up = min(arguments.requests // _WARM_UP, _MOST_WARM_UP)
    workload = Workload(
        users=arguments.users,
        requests=arguments.requests - warm_up,
        warm_up=warm_up,
        workers=arguments.workers,
        rate=arguments.rate,
        think_time=arguments.think,
        use_time=arguments.use,
        create_time=arguments.login,
        skew=arguments.skew,
    )
    deployment = Deployment(
        replicas=arguments.replicas,
        sticky=arguments.sticky,
        sharing=_sharing(arguments),
        compute_units=arguments.compute,
        pooled=arguments.pooled,
        max_total=arguments.max_total,
        max_size=arguments.max_size,
        options=PoolingServiceOptions(max_idle=arguments.max_idle, timeout=arguments.timeout),
        seed=arguments.seed,
    )
    if not screen.isatty():
        return make_plan(workload, deployment, arguments.goal)
    try:
        return make_plan(workload, deployment, arguments.goal, _progress_on(screen))
    finally:
        screen.write("\r\x1b[K")


def _sharing(arguments: argparse.Namespace) -> Sharing | None:
    """
    How the processes share a limit, if they do.

    Raises:
        ConfigurationError: A setting of the store is given without one.
    """
    given = {"latency": arguments.store_latency, "block": arguments.block}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.store is not None:
        return _STORES[arguments.store](**given)
    if given:
        raise ConfigurationError(
            "--store-latency and --block are about a shared limit: give --store, too, or leave them out", field="store"
        )
    return None


def _progress_on(screen: TextIO) -> Progress:
    """A function that shows on a terminal what is being simulated, in one line."""

    def show(what: str, ended: int, total: int) -> None:
        screen.write(f"\r\x1b[Ksimulating {what}: {ended / total:.0%} of {total:,} requests")
        screen.flush()

    return show


def _check_plot(path: Path) -> None:
    """
    See before the long work whether the picture can be drawn.

    Raises:
        ConfigurationError: There is no such folder.
        ImportError: matplotlib is missing.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot {path}: there is no folder {path.absolute().parent}", field="plot")
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise ImportError(f"--plot needs matplotlib; it comes with\n    {install_command('plot')}") from None


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return number


def _number(text: str) -> float:
    return _checked(text, lambda: float(text), "a number, 0 or more")


def _checked(text: str, read: Callable[[], float], expected: str) -> float:
    try:
        number = read()
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return number


def _seconds(text: str) -> float:
    number = text.rstrip("µusminh")
    unit = text[len(number) :]
    if number == "0":
        unit = unit or "s"  # the same in each unit
    return _checked(text, lambda: float(number) * _UNITS.get(unit, -1.0), "a time with its unit: 5ms, 0.3s or 2min")


def _duration(text: str) -> float | Histogram:
    if ":" not in text:
        return _seconds(text)
    histogram = Histogram()
    for part in text.split(","):
        upper, _, count = part.partition(":")
        bound = _seconds(upper) * 0.75  # the middle of a bucket that begins at half its upper bound
        for _ in range(_whole(count)):
            histogram.record(bound)
    return histogram


def _goal(text: str) -> WaitGoal:
    share, equals, wait = text.partition("=")
    if not equals or not share.startswith("p"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a goal such as p99=50ms")
    percent = _number(share[1:])
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share of the requests, above p0 and at most p100")
    return WaitGoal(percent / 100, _seconds(wait))
