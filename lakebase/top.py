"""`lakebase top`: the live page of a running app, or a local Lakebase, in a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._top_source import Source

__all__ = ["add_arguments", "main"]

#: The environment variable with the token for `authorization: Bearer`, so that it stands in no list of processes.
TOKEN = "LAKEBASE_TOP_TOKEN"  # noqa: S105 - its name, not a token
SORTS = ("busy", "waiting", "used", "size", "acquired", "created", "timeouts", "key")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    parser.add_argument(
        "url", nargs="?", metavar="URL",
        help="where the app has its live page, such as http://127.0.0.1:8000/pools/; "
        "without it, the local Lakebase that runs on this machine",
    )  # fmt: skip
    parser.add_argument("--name", help="which local Lakebase (default: the only one)")
    parser.add_argument("--once", action="store_true", help="print it once, for scripts, and exit")
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds between two looks (default: 1)"
    )
    parser.add_argument("--pool", metavar="NAME", help="only this pool's keys")
    parser.add_argument("--find", metavar="TEXT", help="only keys with this text; a whole key also where it is hidden")
    parser.add_argument(
        "--sort",
        choices=SORTS,
        default="busy",
        metavar="ORDER",
        help=f"of the keys: {', '.join(SORTS)} (default: busy)",
    )  # fmt: skip
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", type=_header,
        help=f"send this with each request; a bearer token is better in the environment as {TOKEN}",
    )  # fmt: skip
    parser.epilog = "In the terminal: q quits, space pauses, s sorts by the next column."


def main(arguments: argparse.Namespace) -> int:
    """
    Show the pools until `q` or Ctrl-C; returns 0, or 2 if there is nothing to show and why is printed.

    Raises:
        ModuleNotFoundError: rich is missing.
    """
    from . import _top_screen as screen
    from ._top_source import SourceError

    try:
        source = _source(arguments)
        shown = source.read(sort=arguments.sort)
    except SourceError as error:
        sys.stderr.write(f"lakebase top: {error}\n")
        return 2
    if arguments.once or not sys.stdout.isatty():
        screen.print_once(shown, source.name)
        return 0
    screen.Watch(source, shown, interval=arguments.interval, sort=arguments.sort, sorts=SORTS).run()
    return 0


def _source(arguments: argparse.Namespace) -> Source:
    from ._top_source import LocalSource, PageSource, SourceError

    if arguments.url is None:
        return LocalSource.find(arguments.name)
    if arguments.name is not None:
        raise SourceError("give the address of a live page, or --name for a local Lakebase; both were given")
    headers: dict[str, str] = dict(arguments.header)
    if token := os.environ.get(TOKEN):
        headers.setdefault("Authorization", f"Bearer {token}")
    query = {"pool": arguments.pool, "q": arguments.find}
    return PageSource(arguments.url, headers, {name: value for name, value in query.items() if value is not None})


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 0.2 to 3600")
    return seconds


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError("expected 'NAME: VALUE'")  # not repeated: it may be a secret
    return name.strip(), value.strip()
