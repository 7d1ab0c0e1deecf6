"""`lakebase local …`: commands that start, show and stop local Lakebases."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import psycopg

from .errors import LocalLakebaseError
from .lake import LocalLakebase
from .orders import OrderServer, send_order
from .postgres import environment_without_libpq, find_binaries
from .registry import DEFAULT_NAME, Record, claim_name, find_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Claim

__all__ = ["add_commands"]

_STOP_TIMEOUT = 30.0


def add_commands(local: argparse.ArgumentParser) -> None:
    """Give a parser the commands of this module."""
    commands = local.add_subparsers(dest="local_command", required=True, metavar="COMMAND")
    _add_up(commands)

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.set_defaults(run=_with_short_errors(run))
        return parser

    status = command("status", "say what is running", _status)
    status.add_argument("name", nargs="?", help="only this one")
    down = command("down", "stop one that is running", _down)
    down.add_argument("name", nargs="?", help="which one (default: the only one)")
    down.add_argument("--all", action="store_true", help="stop all")
    env = command("env", "print the environment of one that is running, for the shell's eval", _env)
    env.add_argument("name", nargs="?", help="which one (default: the only one)")
    token = command("token", "print a new workspace token of a user, who is added if missing", _token)
    token.add_argument("user", metavar="EMAIL", help="the user, also the Postgres role")
    token.add_argument("--name", help="which local Lakebase (default: the only one)")
    token.add_argument("--password", action="store_true", help="print a minted credential instead, for Postgres")
    psql = command("psql", "open psql as a user", _psql)
    psql.add_argument("--name", help="which local Lakebase (default: the only one)")
    psql.add_argument("--user", metavar="EMAIL", help="the role, added if missing (default: the owner)")
    psql.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of psql, after --")
    suspend = command("suspend", "scale to zero: drop all connections; the next one wakes it", _suspend)
    suspend.add_argument("name", nargs="?", help="which one (default: the only one)")
    suspend.add_argument(
        "--wake-after", type=float, default=0.3, metavar="S", help="seconds that waking takes (default: 0.3)"
    )


def _add_up(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = commands.add_parser(
        "up",
        help="start one and keep it running until Ctrl-C",
        description="Start a local Lakebase, print the environment that an app needs to use it, and run until Ctrl-C, "
        "SIGTERM or `lakebase local down`. Without --data-dir nothing is left behind.",
    )
    up.add_argument("--name", help="what other commands call it (default: local, or local-2, … if that runs)")
    up.add_argument("--data-dir", metavar="DIR", help="keep data, certificate and tokens there for the next time")
    up.add_argument("--port", type=int, default=0, help="of the database (default: a free one)")
    up.add_argument(
        "--workspace-port", type=int, default=0, metavar="PORT", help="of the workspace API (default: a free one)"
    )
    up.add_argument("--user", action="append", default=[], metavar="EMAIL", help="add a user; may be repeated")
    up.add_argument(
        "--postgres", default="auto", metavar="WHICH", help="embedded, system, docker, or a directory of programs"
    )
    up.add_argument(
        "--pooler", default="auto", metavar="WHICH", help="off, or the path of PgBouncer (default: one that is found)"
    )
    up.add_argument("--max-connections", type=int, default=100, metavar="N", help="direct connections (default: 100)")
    up.add_argument(
        "--compute-units", type=float, metavar="CU", help="size of the compute; decides the connections instead"
    )
    up.add_argument(
        "--token-lifetime",
        type=float,
        default=3600.0,
        metavar="S",
        help="seconds that a credential is good (default: 3600)",
    )
    up.add_argument(
        "--suspend-timeout", type=float, metavar="S", help="scale to zero after that many idle seconds (default: never)"
    )
    up.add_argument(
        "--wake-after", type=float, default=0.3, metavar="S", help="seconds that waking takes (default: 0.3)"
    )
    up.add_argument("--read-only", action="store_true", help="offer a read-only host, too")
    up.set_defaults(run=_with_short_errors(_up))


def _with_short_errors(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command, with one line instead of a traceback for an error that the user can do something about."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except BrokenPipeError:
            raise  # the output was closed, as by `head`
        except (LocalLakebaseError, ValueError, OSError, psycopg.Error) as error:
            # On one line: libpq's messages have several.
            print(f"lakebase local {arguments.local_command}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1

    return run


# Up


class _Stopped(BaseException):
    """A signal asks for the end. It is no `Exception`, so that no handler on the way takes it for a failure."""


def _stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # stopping must not be interrupted
    raise _Stopped


def _up(arguments: argparse.Namespace) -> int:
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
            record = _publish(claim, lake, orders, arguments.data_dir)
            tokens = {user: lake.add_user(user) for user in arguments.user}
            print(_welcome(record, tokens, time.monotonic() - began), flush=True)
            why = _until_it_fails(lake)
        print(f"lakebase local up: {why}", file=sys.stderr)
    except _Stopped:
        print("\n# stopped", file=sys.stderr)
        return 0
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
        environment=lake.environment(),
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


def _welcome(record: Record, tokens: dict[str, str], seconds: float) -> str:
    pooler = record.pooled or f"none: {record.why_no_pooler}"
    lines = [
        f"# Local Lakebase {record.name!r}, up in {seconds:.1f} s. Ctrl-C stops it.",
        f"#   database   {record.host}:{record.port}/{record.database} (Postgres {record.postgres_version})",
        f"#   pooler     {pooler}",
        f"#   workspace  {record.workspace_url}",
        f"#   data       {record.data_dir or 'not kept'}",
        "# For an app on it, in the shell that starts the app:",
        *_exports(record),
    ]
    for user, token in tokens.items():
        lines.append(f"# Workspace token of {user}, as in X-Forwarded-Access-Token:")
        lines.append(f"#   {token}")
    name = "" if record.name == DEFAULT_NAME else f" --name {record.name}"
    lines.append(f"# A user's token: lakebase local token EMAIL{name}    A prompt: lakebase local psql{name}")
    return "\n".join(lines)


def _exports(record: Record) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in record.environment.items()]


# The other commands


def _one(name: str | None) -> Record:
    running = find_records()
    if name is not None:
        for record in running:
            if record.name == name:
                return record
        raise LocalLakebaseError(f"no local Lakebase {name!r} runs ({_names(running)})")
    if not running:
        raise LocalLakebaseError("no local Lakebase runs: `lakebase local up` starts one")
    if len(running) > 1:
        raise LocalLakebaseError(f"several run: say which ({_names(running)})")
    return running[0]


def _names(running: list[Record]) -> str:
    return ", ".join(record.name for record in running) or "none does"


def _status(arguments: argparse.Namespace) -> int:
    running = [_one(arguments.name)] if arguments.name else find_records()
    for record in running:
        found = send_order(record.orders_address, record.orders_token, "status")
        print(f"{record.name}: {found['state']}, process {record.pid}")
        print(f"  database   {record.host}:{record.port}/{record.database} (Postgres {record.postgres_version})")
        print(f"  pooler     {record.pooled or 'none: ' + record.why_no_pooler}")
        print(f"  workspace  {record.workspace_url}")
        print(f"  data       {record.data_dir or 'not kept'}")
        counts = f"{found['open']} connections; since the start {found['total']}, and {found['minted']} credentials"
        print(f"  now        {counts}")
        for user, (now, total, minted) in found["users"].items():
            print(f"    {user}: {now} connections, {total} since the start, {minted} credentials")
    if not running:
        print("no local Lakebase runs")
    return 0 if running else 3


def _down(arguments: argparse.Namespace) -> int:
    for record in find_records() if arguments.all else [_one(arguments.name)]:
        try:
            os.kill(record.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it has just ended
        deadline = time.monotonic() + _STOP_TIMEOUT
        while any(other.name == record.name and other.pid == record.pid for other in find_records()):
            if time.monotonic() > deadline:
                raise LocalLakebaseError(
                    f"{record.name} (process {record.pid}) has not stopped within {_STOP_TIMEOUT:g} s"
                )
            time.sleep(0.02)
        print(f"{record.name}: stopped")
    return 0


def _env(arguments: argparse.Namespace) -> int:
    print("\n".join(_exports(_one(arguments.name))))
    return 0


def _token(arguments: argparse.Namespace) -> int:
    record = _one(arguments.name)
    what = "password" if arguments.password else "token"
    print(send_order(record.orders_address, record.orders_token, what, user=arguments.user)[what])
    return 0


def _suspend(arguments: argparse.Namespace) -> int:
    record = _one(arguments.name)
    found = send_order(record.orders_address, record.orders_token, "suspend", wake_after=arguments.wake_after)
    print(f"{record.name}: {found['state']}")
    return 0


def _psql(arguments: argparse.Namespace) -> int:
    record = _one(arguments.name)
    user = arguments.user or record.admin
    extra = arguments.arguments[1:] if arguments.arguments[:1] == ["--"] else arguments.arguments
    # This order adds the user, if missing.
    password = send_order(record.orders_address, record.orders_token, "password", user=user)["password"]
    program = shutil.which("psql")
    if program is not None:
        names = ("PGHOST", "PGPORT", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT")
        environment = {name: record.environment[name] for name in names} | {"PGPASSWORD": password}
    else:
        program = str(find_binaries().joinpath("psql"))
        if not record.run_dir or not Path(program).exists():
            raise LocalLakebaseError(
                "there is no psql on the PATH: on Debian and Ubuntu it is in the package postgresql-client"
            )
        print("# No psql on the PATH: the embedded one, which has no TLS, straight to Postgres", file=sys.stderr)
        environment = {
            "PGHOST": record.run_dir,
            "PGPORT": "5432",
            "PGDATABASE": record.database,
            "PGSSLMODE": "disable",
        }
    sys.stdout.flush()
    os.execve(program, [program, *extra], {**environment_without_libpq(os.environ), **environment, "PGUSER": user})  # noqa: S606
