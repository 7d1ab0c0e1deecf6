"""
What SQL cannot do through the built-in pooler, found before it is run.

The pooler gives a server connection for the length of a transaction only, so
whatever lives in a session is lost, or left to another client; often without
an error. The restrictions are those of
https://docs.databricks.com/aws/en/oltp/projects/connection-pooling, read from
Postgres' own parse tree: by `postgast`, of the extra `lakebase-pooling[sql]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg

from pooling.extras import install_command

from ._pooler_rules import FOLLOWED, LOCKS, SESSION_CALLS, Restriction, Violation, is_false_text
from ._sql_tokens import skim
from .errors import ConfigurationError, LakebaseError

if TYPE_CHECKING:
    from psycopg.sql import Composable

__all__ = [
    "Restriction",
    "TransactionModeError",
    "Violation",
    "guard_connection",
    "guarded_cursor",
    "transaction_mode_violations",
]


class TransactionModeError(LakebaseError, psycopg.NotSupportedError):
    """
    A statement was not sent, since the pooler would break it.

    Attributes:
        violations: Why.
    """

    def __init__(self, message: str, *, violations: tuple[Violation, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.violations = violations


_HOLD = 0x0020  # CURSOR_OPT_HOLD of Postgres' parsenodes.h

_PLAIN = {
    "PrepareStmt": (Restriction.PREPARED_STATEMENT, "PREPARE"),
    "ExecuteStmt": (Restriction.PREPARED_STATEMENT, "EXECUTE"),
    "DeallocateStmt": (Restriction.PREPARED_STATEMENT, "DEALLOCATE"),
    "ListenStmt": (Restriction.NOTIFICATION, "LISTEN"),
    "UnlistenStmt": (Restriction.NOTIFICATION, "UNLISTEN"),
    "NotifyStmt": (Restriction.NOTIFICATION, "NOTIFY"),
    "DiscardStmt": (Restriction.SESSION_SETTING, "DISCARD"),
    "LoadStmt": (Restriction.SESSION_SETTING, "LOAD"),
}
# Where the relation that a statement creates is found.
_CREATES = {
    "CreateStmt": ("relation", "CREATE TABLE"),
    "ViewStmt": ("view", "CREATE VIEW"),
    "CreateSeqStmt": ("sequence", "CREATE SEQUENCE"),
}
_SCHEMA_CHANGES = {
    "AlterTableStmt": "ALTER TABLE",
    "AlterDomainStmt": "ALTER DOMAIN",
    "AlterEnumStmt": "ALTER TYPE",
    "AlterFunctionStmt": "ALTER FUNCTION",
    "AlterObjectSchemaStmt": "ALTER … SET SCHEMA",
    "AlterOwnerStmt": "ALTER … OWNER TO",
    "AlterPolicyStmt": "ALTER POLICY",
    "AlterSeqStmt": "ALTER SEQUENCE",
    "CompositeTypeStmt": "CREATE TYPE",
    "CreateDomainStmt": "CREATE DOMAIN",
    "CreateEnumStmt": "CREATE TYPE",
    "CreateExtensionStmt": "CREATE EXTENSION",
    "CreateFunctionStmt": "CREATE FUNCTION",
    "CreatePolicyStmt": "CREATE POLICY",
    "CreateRangeStmt": "CREATE TYPE",
    "CreateSchemaStmt": "CREATE SCHEMA",
    "CreateTrigStmt": "CREATE TRIGGER",
    "DropStmt": "DROP",
    "IndexStmt": "CREATE INDEX",
    "ReindexStmt": "REINDEX",
    "RenameStmt": "ALTER … RENAME",
    "RuleStmt": "CREATE RULE",
}


def transaction_mode_violations(sql: str | bytes | Composable) -> list[Violation]:
    """
    The places in the SQL that the built-in pooler would break, in order; none if it is fit for it.

    Several statements are read as such, and `DO` blocks in plpgsql from the
    inside. What is only known when it runs stays unseen: dynamic SQL, functions,
    and a `set_config` whose third argument is a parameter. Placeholders of
    psycopg (`%s`, `%(name)s`) are understood.

    Raises:
        ValueError: It is not SQL that Postgres' parser accepts.
        ConfigurationError: The parser is not installed.
    """
    return list(_found(_text(sql)))


def guard_connection(connection: Any, *, allow: Collection[Restriction] = ()) -> None:
    """
    Have a connection refuse to send what the pooler would break.

    Its cursors, of whatever class, raise `TransactionModeError` instead. A text
    that was seen before costs a dictionary look-up.

    Args:
        connection: A `psycopg.Connection` or `AsyncConnection`.
        allow: Restrictions that are not looked for.
    """
    _parser()
    allowed = frozenset(allow)
    factory = connection.cursor_factory
    if factory is guarded_cursor:
        factory = psycopg.AsyncCursor if isinstance(connection, psycopg.AsyncConnection) else psycopg.Cursor
    connection.cursor_factory = _guarded(factory, allowed)
    connection.server_cursor_factory = _guarded(connection.server_cursor_factory, allowed)


def guarded_cursor(connection: Any, **keywords: Any) -> Any:
    """
    A `cursor_factory=` for `psycopg.connect`, blocking or not: the connection's first cursor has it guarded.

    A named cursor that comes before any other is not looked at; `guard_connection` sees to that.
    """
    guard_connection(connection)
    return connection.cursor_factory(connection, **keywords)


@lru_cache(maxsize=64)
def _guarded(cursor_class: type, allowed: frozenset[Restriction]) -> type:
    if issubclass(cursor_class, _GuardedCursor):
        return cursor_class
    return type(f"Guarded{cursor_class.__name__}", (_GuardedCursor, cursor_class), {"_allowed": allowed})


class _GuardedCursor:
    # The blocking cursors' methods return results, the asyncio ones' return coroutines: both are passed through.

    _allowed: frozenset[Restriction] = frozenset()

    def execute(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        self._check(query)
        return super().execute(query, *arguments, **keywords)  # type: ignore[misc]

    def executemany(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        self._check(query)
        return super().executemany(query, *arguments, **keywords)  # type: ignore[misc]

    def stream(self, query: Any, *arguments: Any, **keywords: Any) -> Any:
        self._check(query)
        return super().stream(query, *arguments, **keywords)  # type: ignore[misc]

    def copy(self, statement: Any, *arguments: Any, **keywords: Any) -> Any:
        self._check(statement)
        return super().copy(statement, *arguments, **keywords)  # type: ignore[misc]

    def _check(self, query: Any) -> None:
        try:
            found = [each for each in _found(_text(query, self)) if each.restriction not in self._allowed]
        except ValueError:
            return  # the server tells better what is wrong with it
        if getattr(self, "withhold", False) and Restriction.HELD_CURSOR not in self._allowed:
            found.append(Violation(Restriction.HELD_CURSOR, "a named cursor with hold", 1))
        if found:
            raise TransactionModeError("; ".join(map(str, found)), violations=tuple(found))


def _text(sql: Any, context: Any = None) -> str:
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode()
    if hasattr(sql, "as_string"):
        return str(sql.as_string(context))
    raise ValueError(f"SQL of type {type(sql).__name__}: expected a string, bytes or psycopg.sql.Composable")


_LONG = 10_000


def _found(sql: str) -> tuple[Violation, ...]:
    # A text of such a length has its values in it, and does not come again.
    return tuple(_look(sql)) if len(sql) > _LONG else _found_before(sql)


@lru_cache(maxsize=1024)
def _found_before(sql: str) -> tuple[Violation, ...]:
    return tuple(_look(sql))


def _look(sql: str, first_line: int = 1) -> Iterator[Violation]:
    encoded = sql.encode()
    try:
        statements = _parse(sql)
    except _TooDeepError as too_deep:
        parser = _parser()
        yield from skim(too_deep.sql, parser.scan(too_deep.sql).tokens, parser.pg_query_pb2.Token.Name, first_line)
        return
    for statement in statements:
        # A statement begins at the end of the one before: the line wanted is that of its first word.
        begin = statement.stmt_location
        text = encoded[begin : begin + statement.stmt_len if statement.stmt_len else None]
        line = first_line + encoded[:begin].count(b"\n") + _leading_lines(text.decode(errors="replace"))
        for node in _nodes(statement):
            # In a statement that changes what the server keeps, as `ALTER ROLE … SET`, it sets nothing in the session.
            if type(node).__name__ == "VariableSetStmt" and not statement.stmt.HasField("variable_set_stmt"):
                continue
            for restriction, what in _judge(node):
                yield Violation(restriction, what, line)
            if type(node).__name__ == "DoStmt":
                yield from _look_inside(text.decode(), line)


_BLANK = re.compile(r"(\s|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)


def _leading_lines(text: str) -> int:
    match = _BLANK.match(text)
    return match[0].count("\n") if match else 0


def _judge(node: Any) -> Iterator[tuple[Restriction, str]]:
    kind = type(node).__name__
    if kind in _PLAIN:
        yield _PLAIN[kind]
    elif kind == "VariableSetStmt":
        yield from _judge_set(node)
    elif kind == "FuncCall":
        yield from _judge_call(node)
    elif kind == "DeclareCursorStmt":
        if node.options & _HOLD:
            yield Restriction.HELD_CURSOR, "DECLARE … WITH HOLD"
    elif kind == "CreateTableAsStmt":
        yield from _judge_relation(node.into.rel, node.into.on_commit, "CREATE TABLE … AS")
    elif kind == "SelectStmt":
        if node.HasField("into_clause"):
            yield from _judge_relation(node.into_clause.rel, node.into_clause.on_commit, "SELECT INTO")
    elif kind == "UpdateStmt" and node.relation.relname == "pg_settings":
        yield Restriction.SESSION_SETTING, "UPDATE pg_settings"
    elif kind == "TransactionStmt":
        if node.kind == _parser().pg_query_pb2.TRANS_STMT_PREPARE:
            yield Restriction.TWO_PHASE, "PREPARE TRANSACTION"
    elif kind in _CREATES:
        name, what = _CREATES[kind]
        yield from _judge_relation(getattr(node, name), getattr(node, "oncommit", 0), what)
    elif kind in _SCHEMA_CHANGES:
        yield Restriction.SCHEMA_CHANGE, _SCHEMA_CHANGES[kind]


def _judge_set(node: Any) -> Iterator[tuple[Restriction, str]]:
    # `SET TRANSACTION` and `SET LOCAL` end with the transaction.
    name = node.name.lower()
    if node.is_local or name.startswith("transaction") or name in FOLLOWED:
        return
    enum = node.DESCRIPTOR.fields_by_name["kind"].enum_type
    if "RESET" in enum.values_by_number[node.kind].name:
        yield Restriction.SESSION_SETTING, f"RESET {node.name or 'ALL'}"
    else:
        yield Restriction.SESSION_SETTING, f"SET {node.name}"


def _judge_call(node: Any) -> Iterator[tuple[Restriction, str]]:
    names = [each.string.sval for each in node.funcname]
    if len(names) > 1 and names[-2] != "pg_catalog":
        return
    name = names[-1]
    if LOCKS.fullmatch(name):
        yield Restriction.SESSION_LOCK, f"{name}()"
    elif name in SESSION_CALLS:
        yield SESSION_CALLS[name], f"{name}()"
    elif name == "set_config":
        arguments = _arguments(node, ("setting_name", "new_value", "is_local"))
        if "is_local" in arguments and _truth(arguments["is_local"]) is False:
            setting = arguments["setting_name"].a_const.sval.sval.lower() if "setting_name" in arguments else ""
            if setting not in FOLLOWED:
                yield Restriction.SESSION_SETTING, "set_config(…, false)"


def _arguments(call: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """A call's arguments by the names of the function's parameters."""
    found = {}
    for name, argument in zip(names, call.args, strict=False):
        if argument.HasField("named_arg_expr"):
            found[argument.named_arg_expr.name] = argument.named_arg_expr.arg
        else:
            found[name] = argument
    return found


def _truth(node: Any) -> bool | None:
    """The value of a constant, as Postgres casts it to a boolean; `None` if it is no constant."""
    while node.HasField("type_cast"):
        node = node.type_cast.arg
    if node.HasField("bool_expr") and len(node.bool_expr.args) == 1:  # only NOT has one
        value = _truth(node.bool_expr.args[0])
        return None if value is None else not value
    if not node.HasField("a_const"):
        return None
    constant = node.a_const
    if constant.HasField("boolval"):
        return bool(constant.boolval.boolval)
    if constant.HasField("ival"):
        return bool(constant.ival.ival)
    return not is_false_text(constant.sval.sval) if constant.HasField("sval") else None


def _judge_relation(relation: Any, on_commit: int, what: str) -> Iterator[tuple[Restriction, str]]:
    if relation.relpersistence == "t" or relation.schemaname == "pg_temp":
        # Dropped at the end of the transaction, it never outlives the server connection that it is on.
        if on_commit != _parser().pg_query_pb2.ONCOMMIT_DROP:
            yield Restriction.TEMPORARY_TABLE, what.replace("CREATE", "CREATE TEMPORARY").replace("INTO", "INTO TEMP")
    else:
        yield Restriction.SCHEMA_CHANGE, what


def _look_inside(block: str, line: int) -> Iterator[Violation]:
    parser = _parser()
    try:
        parsed = parser.parse_plpgsql(block)
    except parser.PgQueryError:
        return  # another language, or more than the parser knows without a catalogue
    for query, offset in _queries(parsed, 1):
        for text in (query, f"SELECT {query.rpartition(':=')[2]}"):
            try:
                yield from _look(text, line + offset - 1)
            except ValueError:
                continue
            break


def _queries(tree: Any, line: int) -> Iterator[tuple[str, int]]:
    if isinstance(tree, dict):
        line = tree.get("lineno", line)
        for name, value in tree.items():
            if name == "query" and isinstance(value, str):
                yield value, line
            else:
                yield from _queries(value, line)
    elif isinstance(tree, list):
        for each in tree:
            yield from _queries(each, line)


_PLACEHOLDER = re.compile(r"%(?:(%)|\([^)]*\)[sbt]|[sbt])")


class _TooDeepError(Exception):
    def __init__(self, sql: str) -> None:
        super().__init__()
        self.sql = sql


def _parse(sql: str) -> Any:
    parser = _parser()
    try:
        return _parsed(sql)
    except parser.PgQueryError as error:
        # psycopg replaces its placeholders wherever they stand, in strings too.
        replaced = _PLACEHOLDER.sub(lambda match: match[1] or "$1", sql)
        if replaced != sql:
            try:
                return _parsed(replaced)
            except parser.PgQueryError:
                pass
        raise ValueError(f"not SQL that Postgres accepts: {error}") from error


def _parsed(sql: str) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return _parser().parse(sql).stmts
    except DecodeError:
        # Postgres has read it, and its tree is deeper than protobuf carries: a chain of some fifty operators is enough.
        raise _TooDeepError(sql) from None


def _nodes(statement: Any) -> Iterator[Any]:
    walk: Callable[[Any], Iterator[tuple[str, Any]]] = _parser().walk
    return (node for _, node in walk(statement))


@lru_cache(maxsize=1)
def _parser() -> Any:
    try:
        # Not an `import` statement: type checkers cannot read the package's generated stubs.
        return import_module("postgast")
    except ImportError as error:
        raise ConfigurationError(
            f"reading SQL needs Postgres' parser: {install_command('sql')}", field="transaction_mode"
        ) from error
