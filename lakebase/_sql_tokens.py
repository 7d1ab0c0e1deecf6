"""
The same restrictions on the tokens of Postgres' own lexer, for statements whose tree is too deep to be carried over.

Strings, comments and quoted names are told from words here too; what is not
known is which name is whose alias. So this may find what the tree would not,
and only where the tree is not to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ._pooler_rules import FOLLOWED, LASTING_SETTINGS, LOCKS, SESSION_CALLS, Restriction, Violation, is_false_text


class _Word(NamedTuple):
    text: str
    line: int


_HEADS = {
    "prepare": (Restriction.PREPARED_STATEMENT, "PREPARE"),
    "execute": (Restriction.PREPARED_STATEMENT, "EXECUTE"),
    "deallocate": (Restriction.PREPARED_STATEMENT, "DEALLOCATE"),
    "listen": (Restriction.NOTIFICATION, "LISTEN"),
    "unlisten": (Restriction.NOTIFICATION, "UNLISTEN"),
    "notify": (Restriction.NOTIFICATION, "NOTIFY"),
    "discard": (Restriction.SESSION_SETTING, "DISCARD"),
    "load": (Restriction.SESSION_SETTING, "LOAD"),
    "alter": (Restriction.SCHEMA_CHANGE, "ALTER"),
    "drop": (Restriction.SCHEMA_CHANGE, "DROP"),
    "reindex": (Restriction.SCHEMA_CHANGE, "REINDEX"),
}
_TEMPORARY = ("temp", "temporary")


def skim(sql: str, tokens: Iterable[Any], name_of: Callable[[int], str], first_line: int = 1) -> Iterator[Violation]:
    """
    The violations of a text, by its tokens.

    Args:
        sql: The text.
        tokens: With `token`, `start` and `end`; positions in its UTF-8.
        name_of: The name of a `token`.
        first_line: Of the text.
    """
    encoded = sql.encode()
    words: list[_Word] = []
    for token in tokens:
        name = name_of(token.token)
        if name.endswith("COMMENT"):
            continue
        text = encoded[token.start : token.end].decode()
        if name == "ASCII_59":  # ;
            yield from _statement(words)
            words = []
            continue
        # A string keeps its quotes and so is no word, whatever is in it; a quoted name is one without them.
        if name == "IDENT":
            text = text.strip('"')
        words.append(_Word(text.lower(), first_line + encoded[: token.start].count(b"\n")))
    yield from _statement(words)


def _statement(words: list[_Word]) -> Iterator[Violation]:
    if not words:
        return
    line = words[0].line
    texts = [word.text for word in words]
    for restriction, what in (*_by_head(texts), *_by_call(texts)):
        yield Violation(restriction, what, line)


def _by_head(texts: list[str]) -> Iterator[tuple[Restriction, str]]:
    head, following = texts[0], texts[1:3]
    if head == "alter" and following[:1] and following[0] in LASTING_SETTINGS:
        return
    if head == "prepare" and following[:1] == ["transaction"]:
        yield Restriction.TWO_PHASE, "PREPARE TRANSACTION"
    elif head == "update" and "pg_settings" in following:
        yield Restriction.SESSION_SETTING, "UPDATE pg_settings"
    elif head in _HEADS and following[:1] != ["transaction"]:
        yield _HEADS[head]
    elif head in ("set", "reset"):
        name = following[-1] if following[:1] == ["session"] and head == "set" else "".join(following[:1])
        if name not in ("local", "transaction", "constraints", "time", *FOLLOWED):
            yield Restriction.SESSION_SETTING, f"{head.upper()} {name}"
    elif head == "declare" and _has(texts, "with", "hold"):
        yield Restriction.HELD_CURSOR, "DECLARE … WITH HOLD"
    elif head == "create" and any(text in _TEMPORARY for text in texts[1:4]):
        if not _has(texts, "on", "commit", "drop"):
            yield Restriction.TEMPORARY_TABLE, "CREATE TEMPORARY"
    elif head == "create":
        yield Restriction.SCHEMA_CHANGE, "CREATE"
    elif head in ("select", "with", "(") and any(_has(texts, "into", text) for text in _TEMPORARY):
        yield Restriction.TEMPORARY_TABLE, "SELECT INTO TEMP"


def _by_call(texts: list[str]) -> Iterator[tuple[Restriction, str]]:
    for at, text in enumerate(texts[:-1]):
        if texts[at + 1] != "(" or (at > 1 and texts[at - 1] == "." and texts[at - 2] != "pg_catalog"):
            continue
        if LOCKS.fullmatch(text):
            yield Restriction.SESSION_LOCK, f"{text}()"
        elif text in SESSION_CALLS:
            yield SESSION_CALLS[text], f"{text}()"
        elif text == "set_config" and _sets_session(texts[at + 2 : at + 8]):
            yield Restriction.SESSION_SETTING, "set_config(…, false)"


def _sets_session(arguments: list[str]) -> bool:
    """Whether `set_config` with these tokens, commas and the closing bracket included, sets more than a transaction."""
    if len(arguments) < 6 or arguments[5] != ")":
        return False
    return is_false_text(arguments[4].strip("'")) and arguments[0].strip("'") not in FOLLOWED


def _has(texts: list[str], *run: str) -> bool:
    return any(tuple(texts[at : at + len(run)]) == run for at in range(len(texts)))
