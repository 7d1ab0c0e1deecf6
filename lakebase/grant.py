"""`lakebase grant`: prints the SQL that an identity is lacking, or runs it."""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import psycopg

from pooling.errors import PoolingError

from ._access import Access
from ._role_sql import laid_out
from .config import LakebasePoolConfig
from .errors import ConfigurationError
from .pool import create_lakebase_pool
from .roles import GrantError, Missing, apply, check

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = ["add_arguments", "main"]

_WIDTH = 80
_WAIT = 60.0  # seconds, in which an endpoint wakes from scale-to-zero


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `main()`."""
    parser.add_argument("identity", metavar="IDENTITY", help="e-mail address, application id, group or role")
    kind = parser.add_mutually_exclusive_group()
    for name, means in (
        ("user", "a user's e-mail address"),
        ("service-principal", "a service principal's application id; an id of this form is taken for one"),
        ("group", "a group of the workspace"),
        ("role", "a role of Postgres alone, as one with a native password; it has to exist"),
    ):
        kind.add_argument(
            f"--{name}", dest="kind", action="store_const", const=name.replace("-", "_"), help=f"IDENTITY is {means}"
        )
    what = parser.add_argument_group("what it may do")
    what.add_argument("--schema", action="append", default=[], metavar="NAME", help="in this schema; repeatable")
    what.add_argument(
        "--table",
        action="append",
        metavar="NAME",
        help="only on this table or view, named without its schema; repeatable (default: all)",
    )
    level = what.add_mutually_exclusive_group()
    for name, means in (
        ("usage", "find what is there"),
        ("read", "select as well; this is the default"),
        ("write", "insert, update and delete as well"),
        ("own", "own it all, and so alter and drop it"),
    ):
        level.add_argument(f"--{name}", dest="level", action="store_const", const=name, default="read", help=means)
    what.add_argument("--no-future", action="store_true", help="not on tables that are created later")
    what.add_argument(
        "--creator", action="append", metavar="ROLE", help="who creates those (default: the schema's owner); repeatable"
    )
    what.add_argument("--member-of", action="append", default=[], metavar="ROLE", help="be a member; repeatable")
    what.add_argument("--row-security", action="store_true", help="only as the tables' policies say, whoever owns them")
    parser.add_argument("--apply", action="store_true", help="run the SQL, in one transaction, not only print it")
    parser.add_argument("--json", action="store_true", help="print JSON in place of SQL")
    where = parser.add_argument_group("where, and as whom", "What is not given is taken from the environment.")
    where.add_argument("--endpoint", metavar="NAME", help="projects/P/branches/B/endpoints/E (LAKEBASE_ENDPOINT)")
    where.add_argument("--database", metavar="NAME", help="(PGDATABASE)")
    where.add_argument("--as", dest="user", metavar="ROLE", help="connect as this role, which may grant (PGUSER)")
    where.add_argument("--native-password", action="store_true", help="log in with the password in PGPASSWORD")


class _Outcome(NamedTuple):
    """What was found, and whether it was given."""

    access: Access
    database: str
    connected: str
    missing: list[Missing]
    is_applied: bool


def main(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """
    Print what is missing as SQL, with the reasons as comments; or run it.

    Returns 0 if nothing is missing, or no longer; 1 if something is; and 2 if that cannot be found out.
    """
    stream = out or sys.stdout
    try:
        with _without_log():
            outcome = _run(arguments)
    except GrantError as error:
        sys.stderr.write(f"lakebase grant: {error}\n")
        return 1
    except (PoolingError, psycopg.Error) as error:
        sys.stderr.write(f"lakebase grant: {error}\n")
        return 2
    stream.write(_as_json(outcome) if arguments.json else _as_sql(outcome))
    return 1 if outcome.missing and not outcome.is_applied else 0


@contextmanager
def _without_log() -> Iterator[None]:
    """
    Let the pool's log go only where somebody has asked for it.

    With no handler at all, `logging` writes warnings to stderr: the errors that the command itself prints.
    """
    handler, loggers = logging.NullHandler(), [logging.getLogger(name) for name in ("lakebase", "pooling")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def _run(arguments: argparse.Namespace) -> _Outcome:
    if arguments.table and len(set(arguments.schema)) != 1:
        raise ConfigurationError("--table needs exactly one --schema", field="tables")
    access = Access(
        arguments.identity,
        kind=arguments.kind,
        schemas=arguments.schema,
        level=arguments.level,
        tables=arguments.table,
        future=not arguments.no_future,
        creators=arguments.creator,
        member_of=arguments.member_of,
        row_security=arguments.row_security,
    )
    with create_lakebase_pool(_config(arguments), name="lakebase grant") as pool, pool.connection() as connection:
        missing = (apply if arguments.apply else check)(connection, access)
        return _Outcome(access, connection.info.dbname, connection.info.user, missing, arguments.apply)


def _config(arguments: argparse.Namespace) -> LakebasePoolConfig:
    given = {name: getattr(arguments, name) for name in ("endpoint", "database", "user")}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if arguments.native_password:
        settings["password"] = os.environ.get("PGPASSWORD")
        if not settings["password"]:
            raise ConfigurationError("--native-password: set PGPASSWORD to the password", field="password")
    return LakebasePoolConfig(min_size=0, max_size=1, timeout=_WAIT, **settings)


def _as_sql(outcome: _Outcome) -> str:
    access = outcome.access
    where = f" in {', '.join(map(repr, access.schemas))}" if access.schemas else ""
    what = f"{access.level}{where}" if access.schemas else "log in"
    head = f"{access.identity!r} ({access.identity_kind}) is to {what}. Database: {outcome.database!r}. "
    parts = [_comment(f"{head}Connected as {outcome.connected!r}.")]
    is_guess = access.kind is None and access.identity_kind == "user" and "@" not in access.identity
    if is_guess and outcome.missing:
        guess = "The name is taken for a user's, though it is no e-mail address: --group and --role say otherwise."
        parts.append(_comment(guess))
    word = "Was missing" if outcome.is_applied else "Missing"
    for missing in outcome.missing:
        lines = [_comment(f"{word}: {missing.what}")]
        lines += [_comment(f"-> {missing.advice}")] if missing.advice else []
        lines += [f"{laid_out(statement, _WIDTH - 1)};" for statement in missing.statements]
        parts.append("\n".join(lines))
    parts.append(_comment(_summary(outcome)))
    return "\n\n".join(parts) + "\n"


def _summary(outcome: _Outcome) -> str:
    count = sum(len(missing.statements) for missing in outcome.missing)
    statements = "1 statement" if count == 1 else f"{count} statements"
    if not outcome.missing:
        return "Nothing is missing."
    if outcome.is_applied:
        return f"Done: {statements} in one transaction."
    if any(missing.advice for missing in outcome.missing):
        return "Nothing was changed. --apply would refuse: see ->."
    return f"Nothing was changed. --apply runs {'it' if count == 1 else f'the {statements}'} in one transaction."


def _comment(text: str) -> str:
    lines: Sequence[str] = textwrap.wrap(text, _WIDTH - 3, break_on_hyphens=False, break_long_words=False)
    return "\n".join(f"-- {line}" for line in lines)


def _as_json(outcome: _Outcome) -> str:
    found = {
        "version": 1,
        "identity": outcome.access.identity,
        "kind": outcome.access.identity_kind,
        "database": outcome.database,
        "connected_as": outcome.connected,
        "applied": outcome.is_applied,
        "missing": [missing.as_dict() for missing in outcome.missing],
    }
    return json.dumps(found, indent=2) + "\n"
