"""`lakebase demo`: an app with per-user pools under load on a local Lakebase, with checks of what happened."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "main"]

# About a second's, and about a minute's.
_REQUESTS, _WATCHED_REQUESTS = 300, 6000
# A request before its user's token is rotated, one while it is, and one after that.
_LEAST_PER_USER = 3
# More than a person can follow.
_MOST_USERS = 50
_MOST_REQUESTS = 100_000


def add_arguments(parser: ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    parser.add_argument("--users", type=_whole, default=3, metavar="N", help="users that send requests (default: 3)")
    parser.add_argument(
        "--requests", type=_whole, metavar="N", help="requests, of all together (default: 300; 6000 with --watch)"
    )
    parser.add_argument("--watch", action="store_true", help="serve the live page meanwhile, and open it in a browser")
    parser.add_argument("--quiet", action="store_true", help="print the summary only")


def main(arguments: Namespace) -> int:
    """
    Run the demo and return its exit status: 0 if every check held, 1 if one did not, 2 if it could not be run.

    Blocks until everything is stopped and cleaned up. An interrupt ends it early and leaves nothing behind.

    Args:
        arguments: `users`, `requests`, `quiet` and `watch`, as the command line has them.

    Raises:
        ModuleNotFoundError: A package is missing that the extra `local` brings.
        KeyboardInterrupt: After everything was stopped.
    """
    requests = arguments.requests or (_WATCHED_REQUESTS if arguments.watch else _REQUESTS)
    problem = _find_problem(arguments.users, requests)
    if problem is not None:
        print(f"lakebase demo: {problem}", file=sys.stderr)
        return 2
    for name in ("fastapi", "uvicorn", "httpx", "cryptography", "rich"):
        import_module(name)  # before anything is started
    from lakebase.local import LocalLakebaseError

    from .run import run
    from .screen import screen

    try:
        with screen(quiet=arguments.quiet) as shown:
            report = run(arguments.users, requests, shown, is_watched=arguments.watch)
        shown.summary(report)
    except LocalLakebaseError as error:
        print(f"lakebase demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: all was stopped, and nothing is left behind", file=sys.stderr)
        raise
    return 0 if report.is_good else 1


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return number


def _find_problem(users: int, requests: int) -> str | None:
    if users > _MOST_USERS:
        return f"--users {users}: expected at most {_MOST_USERS}"
    if requests > _MOST_REQUESTS:
        return f"--requests {requests}: expected at most {_MOST_REQUESTS}"
    if requests < _LEAST_PER_USER * users:
        least = _LEAST_PER_USER * users
        return (
            f"--requests {requests}: at least {least} are needed for --users {users}, since a user's token is "
            f"rotated between requests; give more, or fewer --users"
        )
    return None
