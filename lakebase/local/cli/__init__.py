"""`lakebase local …`: commands that start, show and stop local Lakebases."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, get_args

from ..environments import Client
from ..errors import LocalLakebaseError
from . import commands, pooler, psql, up

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["add_arguments", "main"]


def add_arguments(local: argparse.ArgumentParser) -> None:
    """Give a parser the commands of this module."""

    def print_help(_: argparse.Namespace) -> int:
        local.print_help()
        return 0

    local.set_defaults(run_local=print_help, local_command="")
    parsers = local.add_subparsers(dest="local_command", metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = parsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.set_defaults(run_local=run)
        return parser

    up.add_arguments(command("up", "start one and keep it running until Ctrl-C", up.run))
    status = command("status", "say what is running", commands.status)
    _add_name(status, "only this one", is_positional=True)
    down = command("down", "stop one that is running", commands.down)
    _add_name(down, is_positional=True)
    down.add_argument("--all", action="store_true", help="stop all")
    env = command("env", "print the environment of one that is running, for the shell's eval", commands.env)
    _add_name(env, is_positional=True)
    _add_client(env)
    env.add_argument(
        "--user",
        metavar="EMAIL",
        help="of that user, added if missing (default: of the app; with --for psql and jdbc, of the owner)",
    )
    token = command("token", "print a new workspace token of a user, who is added if missing", commands.token)
    token.add_argument("user", metavar="EMAIL", help="the user, also the Postgres role")
    _add_name(token)
    kind = token.add_mutually_exclusive_group()
    kind.add_argument("--password", action="store_true", help="print a minted credential instead, for Postgres")
    kind.add_argument(
        "--scopes",
        metavar="LIST",
        help="a token as an app gets it, that allows only 'postgres,sql'; '' for nothing",
    )
    opened = command("psql", "open psql as a user", psql.run)
    _add_name(opened)
    opened.add_argument("--user", metavar="EMAIL", help="the role, added if missing (default: the owner)")
    opened.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="everything else is passed on to psql")
    suspend = command("suspend", "scale to zero: drop all connections; the next one wakes it", commands.suspend)
    _add_name(suspend, is_positional=True)
    suspend.add_argument(
        "--wake-after", type=float, default=0.3, metavar="S", help="seconds that waking takes (default: 0.3)"
    )
    pooler.add_arguments(command("get-pooler", "fetch a PgBouncer that is new enough, without root", pooler.run))
    _add_client(parsers.choices["up"])


def _add_name(
    parser: argparse.ArgumentParser, text: str = "which one (default: the only one)", *, is_positional: bool = False
) -> None:
    parser.add_argument("--name", help=text)
    if is_positional:
        parser.add_argument("its_name", nargs="?", metavar="NAME", help=text)


def _add_client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="client", choices=get_args(Client), default="python", help="what reads it (default: python)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run a command; an error that the user can do something about is one line instead of a traceback."""
    try:
        status: int = arguments.run_local(arguments)
    except BrokenPipeError:
        raise  # the output was closed, as by `head`
    except (LocalLakebaseError, ValueError, OSError) as error:
        # On one line: libpq's messages have several.
        text = _with_options(" ".join(str(error).split()), arguments)
        print(f"lakebase local {arguments.local_command}: {text}", file=sys.stderr)
        return 1
    return status


def _with_options(text: str, arguments: argparse.Namespace) -> str:
    """What Python says of its arguments, as `port=80`, with the options of the command line in their place."""

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        return f"--{name.replace('_', '-')}" + (f" {value}" if value else "")

    return re.sub(rf"\b({'|'.join(vars(arguments))})=([^\s,:.]?)", option, text)
