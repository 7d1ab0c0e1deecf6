"""Commands for a local Lakebase that runs: each finds its record, and sends its process an order or a signal."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from ..environments import write_environment
from ..errors import LocalLakebaseError
from ..order_client import send_order
from ..registry import find_record, find_records

if TYPE_CHECKING:
    import argparse

__all__ = ["down", "env", "status", "suspend", "token"]

_STOP_TIMEOUT = 30.0


def _name(arguments: argparse.Namespace) -> str | None:
    names = {name for name in (arguments.name, getattr(arguments, "its_name", None)) if name is not None}
    if len(names) > 1:
        raise LocalLakebaseError(f"two names were given ({', '.join(sorted(names))}): give one")
    return names.pop() if names else None


def _order(arguments: argparse.Namespace, what: str, **values: Any) -> dict[str, Any]:
    record = find_record(_name(arguments))
    return send_order(record.orders_address, record.orders_token, what, **values)


def status(arguments: argparse.Namespace) -> int:
    """Say what is running, and return 0, or 3 if nothing is."""
    running = [find_record(_name(arguments))] if _name(arguments) else find_records()
    for record in running:
        found = send_order(record.orders_address, record.orders_token, "status")
        print(f"{record.name}: {found['state']}, process {record.pid}")
        print(f"  database   {record.host}:{record.port}/{record.database} (Postgres {record.postgres_version})")
        print(f"  pooler     {record.pooled or 'none'}")
        print(f"  workspace  {record.workspace_url}")
        print(f"  data       {record.data_dir or 'not kept'}")
        counts = f"{found['open']} connections; since the start {found['total']}, and {found['minted']} credentials"
        print(f"  now        {counts}")
        for user, (now, total, minted) in found["users"].items():
            print(f"    {user}: {now} connections, {total} since the start, {minted} credentials")
    if not running:
        print("no local Lakebase runs")
    return 0 if running else 3


def down(arguments: argparse.Namespace) -> int:
    """Stop one, or all, and return 0 once they have stopped."""
    for record in find_records() if arguments.all else [find_record(_name(arguments))]:
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


def env(arguments: argparse.Namespace) -> int:
    """Print variables for a client, and return 0."""
    found = _order(arguments, "environment", client=arguments.client, user=arguments.user)
    print(write_environment(arguments.client, found["variables"]))
    return 0


def token(arguments: argparse.Namespace) -> int:
    """Print a token or a password, and return 0."""
    what = "password" if arguments.password else "token"
    scopes = {} if arguments.scopes is None else {"scopes": [each for each in arguments.scopes.split(",") if each]}
    print(_order(arguments, what, user=arguments.user, **scopes)[what])
    return 0


def suspend(arguments: argparse.Namespace) -> int:
    """Scale to zero, and return 0."""
    record = find_record(_name(arguments))
    found = send_order(record.orders_address, record.orders_token, "suspend", wake_after=arguments.wake_after)
    print(f"{record.name}: {found['state']}")
    return 0
