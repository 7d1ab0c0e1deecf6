"""
`lakebase doctor`: says what keeps an app or a user from working with its Lakebase, and the text that mends it.

`diagnose` returns what the command prints. `examine` looks at the connection alone.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from ._doctor.examination import examine, examine_all
from ._doctor.facts import Asked, as_privileges
from ._doctor.finding import Finding, Fix, Verdict
from ._doctor.report import SQL_HEAD, as_json, as_sql_file, as_text, exit_status
from ._doctor.store import has_password
from .errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from .config import LakebasePoolConfig

__all__ = [
    "Finding",
    "Fix",
    "Verdict",
    "add_arguments",
    "as_json",
    "as_sql_file",
    "as_text",
    "diagnose",
    "examine",
    "exit_status",
    "main",
]


def diagnose(
    config: LakebasePoolConfig | Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    max_total: int | None = None,
    workers: int = 1,
    schemas: Sequence[str] = (),
    tables: Sequence[str] = (),
    privileges: Sequence[str] | None = None,
    store: str | None = None,
) -> list[Finding]:
    """
    Everything that `lakebase doctor` looks at, for the identity of a configuration.

    Blocks for a few seconds, and for a minute if nothing answers. Opens one connection, runs queries that change
    nothing, and wakes an endpoint that is suspended. In a Redis server it sets a key and deletes it.

    Args:
        config: As for a pool; what is missing comes from the environment. With `token` it is the user's whose token
            that is, and without `user` the workspace is asked whose. `replicas` is how many there are of the app.
        environ: Instead of the process's environment.
        max_total: Most connections of one process, or with `store` of all; the configuration's `max_size` if `None`.
        workers: Processes of each replica.
        schemas: That the app uses, with all of their tables; as names in SQL.
        tables: That the app uses; as names in SQL, perhaps with their schema.
        privileges: That the app needs on these: of SELECT, INSERT, UPDATE and DELETE. `None` is all, and SELECT with
            `read_only`; one that is missing beside SELECT is then a warning and no error.
        store: Of a `SharedBudget`: a directory, a `redis://` URL, `postgres` for the table `pooling_leases` in this
            database, or `postgres:TABLE`.

    Raises:
        ConfigurationError: A text is given in place of a list. What else cannot be is a finding.
    """
    for name, value in (("schemas", schemas), ("tables", tables), ("privileges", privileges)):
        if isinstance(value, str):
            raise ConfigurationError(f"{name}={value!r}: expected a list of names, as [{value!r}]", field=name)
    asked = Asked(
        budget=max_total,
        workers=workers,
        schemas=tuple(schemas),
        tables=tuple(tables),
        needs=as_privileges(privileges),
        store=store,
    )
    return list(examine_all(config, asked, environ=environ))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    _add_connection(parser)
    _add_app(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="print one JSON object")
    out.add_argument(
        "--fix-sql",
        metavar="FILE",
        help="write the SQL that mends the findings; - prints it, and the findings to stderr",
    )
    out.add_argument("--strict", action="store_true", help="exit with status 1 for a warning, too")


def _add_connection(parser: argparse.ArgumentParser) -> None:
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
    # No group of argparse: its usage lines get too long.
    parser.add_argument(
        "--native-password", action="store_true", help="log in with a password, from PGPASSWORD or asked for"
    )
    parser.add_argument(
        "--user-token", metavar="-", help="for the user whose token is on stdin, as X-Forwarded-Access-Token has it"
    )
    parser.add_argument("--user-token-env", metavar="NAME", help="for the user whose token is in that variable")


def _add_app(parser: argparse.ArgumentParser) -> None:
    app = parser.add_argument_group("what the app uses")
    app.add_argument("--schema", metavar="NAME", action="append", default=[], help="with all its tables; repeatable")
    app.add_argument("--table", metavar="NAME", action="append", default=[], help="[SCHEMA.]TABLE; repeatable")
    app.add_argument(
        "--privileges", metavar="LIST", help="that it needs on them (default: select,insert,update,delete)"
    )
    budget = app.add_mutually_exclusive_group()
    budget.add_argument("--max-total", type=int, metavar="N", help="most connections of one process (default: 10)")
    budget.add_argument("--budget", type=int, metavar="N", help="the same")
    app.add_argument("--workers", type=int, metavar="N", help="processes of each replica (default: 1)")
    app.add_argument("--replicas", type=int, metavar="N", help="of the app (default: 1)")
    app.add_argument(
        "--store",
        metavar="STORE",
        help="of a SharedBudget: a directory, redis://HOST, postgres[:TABLE], or env:NAME for what a variable has",
    )


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


class _UsageError(Exception):
    """The command cannot be carried out as it was given."""


class _Output(NamedTuple):
    """Where the findings and the SQL go."""

    findings: TextIO
    sql: TextIO | Path | None


def main(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """
    Print each finding as it is made.

    Returns 0 if a pool would work, warnings or not, 1 if it would not (with `--strict`, if there is a warning), and 2
    if the command cannot be carried out as it was given.
    """
    try:
        output = _output(arguments, out or sys.stdout)
        given = _given(arguments)
        asked = _asked(arguments)
    except _UsageError as error:
        sys.stderr.write(f"lakebase doctor: {error}\n")
        return 2
    findings: list[Finding] = []
    colour = _has_colour(output.findings)
    for finding in examine_all(given, asked, names=_option_names(arguments)):
        findings.append(finding)
        if not arguments.json:
            output.findings.write(as_text(finding, colour=colour))
            output.findings.flush()
    status = exit_status(findings, strict=arguments.strict)
    if arguments.json:
        output.findings.write(as_json(findings, status))
    return _write_sql(output.sql, findings) or status


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a configuration, with the secret that was named."""
    given = {name: getattr(arguments, name) for name in _FIELDS if _is_given(getattr(arguments, name))}
    secrets = ("native_password", "user_token", "user_token_env")
    if len([name for name in secrets if _is_given(getattr(arguments, name))]) > 1:
        raise _UsageError("give one of --native-password, --user-token and --user-token-env")
    if arguments.native_password:
        given["password"] = os.environ.get("PGPASSWORD")
        if not given["password"]:
            if not sys.stdin.isatty():
                raise _UsageError("no terminal to ask for the password on; set PGPASSWORD")
            given["password"] = getpass.getpass("Password: ")
    elif arguments.user_token is not None or arguments.user_token_env is not None:
        given["token"] = _user_token(arguments)
    return given


def _is_given(value: Any) -> bool:
    # By identity: 0 equals False, and is a mistake to report.
    return value is not None and value is not False


def _user_token(arguments: argparse.Namespace) -> str:
    """The token, which is never an argument: every user of the machine can see those of all processes."""
    if arguments.user_token_env is not None:
        if token := _without_scheme(os.environ.get(arguments.user_token_env, "")):
            return token
        raise _UsageError(f"--user-token-env: {arguments.user_token_env} is not set")
    if arguments.user_token != "-":  # noqa: S105
        raise _UsageError(
            "--user-token takes no token, which each user of this machine could see in the list of processes: give "
            "--user-token - and the token on stdin, or --user-token-env NAME. Take the one that you gave for known"
        )
    token = getpass.getpass("User token: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not _without_scheme(token):
        raise _UsageError("--user-token -: there is no token on stdin")
    return _without_scheme(token)


def _without_scheme(token: str) -> str:
    """A token that may have been copied from the header of a request."""
    return token.strip().removeprefix("Bearer ").strip()


def _asked(arguments: argparse.Namespace) -> Asked:
    privileges = arguments.privileges
    return Asked(
        budget=arguments.budget if arguments.budget is not None else arguments.max_total,
        workers=1 if arguments.workers is None else arguments.workers,
        schemas=tuple(arguments.schema),
        tables=tuple(arguments.table),
        needs=as_privileges(privileges and privileges.split(",")),
        store=_store(arguments.store),
    )


def _option_names(arguments: argparse.Namespace) -> dict[str, str]:
    """What the fields of `_asked()` are called on the command line."""
    budget = "--budget" if arguments.budget is not None else "--max-total"
    return {"budget": budget, "workers": "--workers", "needs": "--privileges", "store": "--store"}


def _store(given: str | None) -> str | None:
    if given is None or not given.startswith("env:"):
        if given is not None and has_password(given):
            raise _UsageError(
                "--store has a password, which each user of this machine could see in the list of processes: put the "
                "URL into a variable and give --store env:NAME"
            )
        return given
    name = given.removeprefix("env:")
    if not (store := os.environ.get(name, "").strip()):
        raise _UsageError(f"--store env:{name}: {name} is not set")
    return store


def _output(arguments: argparse.Namespace, out: TextIO) -> _Output:
    if arguments.fix_sql is None:
        return _Output(out, None)
    if arguments.fix_sql == "-":
        if arguments.json:
            raise _UsageError("--json and --fix-sql - would both print: give --fix-sql a file")
        return _Output(sys.stderr, out)
    path = Path(arguments.fix_sql)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise _UsageError(f"--fix-sql: {path}: there is no directory {path.parent}") from None
        first = ""
    except OSError as error:
        raise _UsageError(f"--fix-sql: {path}: {error.strerror}") from error
    if first and not first.startswith(SQL_HEAD):
        raise _UsageError(f"--fix-sql: {path} was not written by lakebase doctor, and is left as it is")
    return _Output(out, path)


def _write_sql(target: TextIO | Path | None, findings: Sequence[Finding]) -> int:
    """
    Write the file, say so, and return the status: 2 if that fails, else 0.

    With nothing to mend no file is made; but one of an earlier run is replaced, whose statements are no longer needed.
    """
    if target is None:
        return 0
    text = as_sql_file(findings)
    if not isinstance(target, Path):
        target.write(text)
        return 0
    count = sum(bool(finding.sql) for finding in findings)
    if not count and not target.exists():
        sys.stderr.write(f"no finding is mended by SQL: {target} is not written\n")
        return 0
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"lakebase doctor: --fix-sql: {target}: {error.strerror}\n")
        return 2
    sys.stderr.write(f"wrote {target}: {count} finding{'s' * (count != 1)}\n")
    return 0


def _has_colour(stream: TextIO) -> bool:
    # https://no-color.org
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
