"""`lakebase doctor`: prints whether a connection would work, and what to do if it would not."""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from ._diagnosis import Finding, Verdict, examine

if TYPE_CHECKING:
    import argparse

__all__ = ["Finding", "Verdict", "add_arguments", "examine", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    parser.add_argument("--host", help="of the endpoint (PGHOST, else the workspace is asked)")
    parser.add_argument("--port", type=int, help="default 5432 (PGPORT)")
    parser.add_argument("--database", metavar="NAME", help="(PGDATABASE)")
    parser.add_argument("--user", metavar="ROLE", help="(PGUSER, DATABRICKS_CLIENT_ID, else the workspace is asked)")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--endpoint", metavar="NAME", help="projects/P/branches/B/endpoints/E (LAKEBASE_ENDPOINT)")
    target.add_argument("--instance-name", metavar="NAME", help="of a provisioned instance")
    parser.add_argument("--ssl-mode", metavar="MODE", help="require, verify-ca or verify-full (PGSSLMODE)")
    parser.add_argument("--ssl-root-cert", metavar="FILE", help="trusted certificates, or 'system' (PGSSLROOTCERT)")
    parser.add_argument("--pooled", action="store_true", help="through the built-in pooler")
    parser.add_argument("--read-only", action="store_true", help="to the readable secondaries")
    parser.add_argument(
        "--native-password", action="store_true", help="log in with a password, from PGPASSWORD or asked for"
    )
    parser.add_argument("--budget", type=int, metavar="N", help="most connections of one process (default: 10)")
    parser.add_argument("--replicas", type=int, metavar="N", help="processes that open as many each (default: 1)")


_FIELDS = (
    "host",
    "port",
    "database",
    "user",
    "endpoint",
    "instance_name",
    "ssl_mode",
    "ssl_root_cert",
    "pooled",
    "read_only",
    "replicas",
)


def _is_given(value: Any) -> bool:
    # By identity: 0 equals False, and is a mistake to report.
    return value is not None and value is not False


def main(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """
    Print a line for each check as it is made.

    Returns 0 if a pool would work, warnings or not, 1 if it would not, and 2 if a password cannot be asked for.
    """
    stream = out or sys.stdout
    given = {name: getattr(arguments, name) for name in _FIELDS if _is_given(getattr(arguments, name))}
    if arguments.native_password:
        given["password"] = os.environ.get("PGPASSWORD")
        if not given["password"]:
            if not sys.stdin.isatty():
                sys.stderr.write("lakebase doctor: no terminal to ask for the password on; set PGPASSWORD\n")
                return 2
            given["password"] = getpass.getpass("Password: ")
    status = 0
    for finding in examine(given, budget=arguments.budget):
        stream.write(f"{finding}\n")
        stream.flush()
        if finding.verdict is Verdict.FAILED:
            status = 1
    return status
