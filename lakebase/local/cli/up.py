"""`lakebase local up`: runs a local Lakebase until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..environments import write_environment
from ..errors import LocalLakebaseError
from ..registry import DEFAULT_NAME, Record, claim_name, find_records

if TYPE_CHECKING:
    import argparse

    from ..lake import LocalLakebase
    from ..orders import OrderServer
    from ..registry import Claim

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `run()`."""
    parser.description = (
        "Start a local Lakebase, print the environment that an app needs to use it, and run until Ctrl-C, SIGTERM or "
        "`lakebase local down`. Without --data-dir nothing is left behind."
    )
    parser.add_argument("--name", help="what other commands call it (default: local, or local-2, … if that runs)")
    parser.add_argument("--data-dir", metavar="DIR", help="keep data, certificate and tokens there for the next time")
    parser.add_argument("--port", type=int, default=0, help="of the database (default: a free one)")
    parser.add_argument(
        "--workspace-port", type=int, default=0, metavar="PORT", help="of the workspace API (default: a free one)"
    )
    parser.add_argument("--user", action="append", default=[], metavar="EMAIL", help="add a user; may be repeated")
    parser.add_argument(
        "--postgres", default="auto", metavar="WHICH", help="embedded, system, docker, or a directory of programs"
    )
    parser.add_argument(
        "--pooler", default="auto", metavar="WHICH", help="off, or the path of PgBouncer (default: one that is found)"
    )
    parser.add_argument(
        "--max-connections", type=int, default=100, metavar="N", help="direct connections (default: 100)"
    )
    parser.add_argument(
        "--compute-units", type=float, metavar="CU", help="size of the compute; decides the connections instead"
    )
    parser.add_argument(
        "--token-lifetime",
        type=float,
        default=3600.0,
        metavar="S",
        help="seconds that a credential is good (default: 3600)",
    )
    parser.add_argument(
        "--suspend-timeout", type=float, metavar="S", help="scale to zero after that many idle seconds (default: never)"
    )
    parser.add_argument(
        "--wake-after", type=float, default=0.3, metavar="S", help="seconds that waking takes (default: 0.3)"
    )
    parser.add_argument("--read-only", action="store_true", help="offer a read-only host, too")


class _Stopped(BaseException):
    """A signal asks for the end. It is no `Exception`, so that no handler on the way takes it for a failure."""


def _stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # stopping must not be interrupted
    raise _Stopped


def run(arguments: argparse.Namespace) -> int:
    """Run one, and return 0 once it was told to stop, 1 if one of its servers has ended by itself."""
    import psycopg

    from ..lake import LocalLakebase
    from ..orders import OrderServer
    from ..postgres import environment_without_libpq

    lake = LocalLakebase(
        arguments.data_dir,
        arguments.port,
        arguments.max_connections,
        arguments.token_lifetime,
        arguments.pooler,
        postgres=arguments.postgres,
        workspace_port=arguments.workspace_port,
        compute_units=arguments.compute_units,
        read_only=arguments.read_only,
        suspend_timeout=arguments.suspend_timeout,
        wake_after=arguments.wake_after,
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    for name in os.environ.keys() - environment_without_libpq(os.environ).keys():
        del os.environ[name]  # they are meant for clients of another database
    _allow_many_files()
    began = time.monotonic()
    try:
        with claim_name(arguments.name) as claim, lake, OrderServer(lake) as orders:
            others = [other.name for other in find_records()]
            record = _publish(claim, lake, orders, arguments.data_dir)
            tokens = {user: lake.add_user(user) for user in arguments.user}
            environment = write_environment(arguments.client, lake.environment(arguments.client))
            print(_welcome(record, others, environment, tokens, time.monotonic() - began), flush=True)
            why = _until_it_fails(lake)
        print(f"lakebase local up: {why}", file=sys.stderr)
    except _Stopped:
        print("\n# stopped", file=sys.stderr)
        return 0
    except psycopg.Error as error:
        raise LocalLakebaseError(str(error)) from error
    return 1


def _allow_many_files() -> None:
    """Raise this process's limit as far as allowed: a connection takes two file descriptors."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        pass  # on macOS, the hard limit is not a number that can be set


def _publish(claim: Claim, lake: LocalLakebase, orders: OrderServer, data_dir: str | None) -> Record:
    record = Record(
        name=claim.name,
        pid=os.getpid(),
        orders_address=orders.address,
        orders_token=orders.token,
        host=lake.host,
        port=lake.port,
        workspace_url=lake.workspace_url,
        database=lake.database,
        admin=lake.admin_user,
        run_dir=str(lake.socket_directory or ""),
        data_dir=str(Path(data_dir).absolute()) if data_dir else None,
        postgres_version=lake.postgres_version,
        pooled=f"{lake.pooled_host}:{lake.pooled_port}" if lake.pooled_host else None,
        why_no_pooler=lake.why_no_pooler,
    )
    claim.publish(record)
    return record


def _until_it_fails(lake: LocalLakebase) -> str:
    wake = threading.Event()
    while True:
        wake.wait(1.0)  # a signal ends this by an exception
        why = lake.failure()
        if why:
            return why


def _beside(name: str, others: list[str]) -> list[str]:
    """What to say where others run, too: without a name, commands such as `env` do not know which one is meant."""
    if not others:
        return []
    return [
        f"# Others run, too ({', '.join(others)}), so that all commands need a name: lakebase local env --name {name}"
    ]


def _welcome(record: Record, others: list[str], environment: str, tokens: dict[str, str], seconds: float) -> str:
    lines = [
        f"# Local Lakebase {record.name!r}, up in {seconds:.1f} s. Ctrl-C stops it.",
        *_beside(record.name, others),
        f"#   database   {record.host}:{record.port}/{record.database} (Postgres {record.postgres_version})",
        f"#   pooler     {record.pooled or 'none'}",
        f"#   workspace  {record.workspace_url}",
        f"#   data       {record.data_dir or 'not kept'}",
        *textwrap.wrap(record.why_no_pooler, 76, initial_indent="# ", subsequent_indent="# "),
        "# For an app on it, in the shell that starts the app:",
        environment,
    ]
    for user, token in tokens.items():
        lines.append(f"# Workspace token of {user}, as in X-Forwarded-Access-Token:")
        lines.append(f"#   {token}")
    name = "" if record.name == DEFAULT_NAME else f" --name {record.name}"
    lines.append(f"# A user's token: lakebase local token EMAIL{name}")
    lines.append(f"# A prompt: lakebase local psql{name}")
    return "\n".join(lines)
