"""The rows that a page wants to see: found, sorted and cut here, so that a page with 10,000 keys has 80 of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .errors import RefusedError

if TYPE_CHECKING:
    from .masking import Masking
    from .reading import Reading, Row

__all__ = ["MOST_ROWS", "find_row", "select"]

#: Rows of one answer.
MOST_ROWS = 1000

_ORDERS: dict[str, Callable[[Row], Any]] = {
    "busy": lambda row: (row.waiting, row.service.borrowed, row.acquired),
    "size": attrgetter("service.size"),
    "used": attrgetter("service.borrowed"),
    "idle": attrgetter("service.available"),
    "waiting": attrgetter("waiting"),
    "acquired": attrgetter("acquired"),
    "created": attrgetter("service.engine.ledger.created"),
    "timeouts": attrgetter("service.engine.tally.timeouts"),
}


def select(reading: Reading, query: Mapping[str, str], masking: Masking) -> dict[str, Any]:
    """
    The rows that a query asks for.

    Args:
        reading: All rows.
        query: `pool`, its name; `q`, a part of the label, or a whole key, also where only its hash is shown; `sort`, a
            column, and `desc`, `1` or `0`; `offset` and `limit`.
        masking: Gives the labels.

    Raises:
        RefusedError: No such pool, no such order, or a number that is none.
    """
    rows = reading.rows
    pool = query.get("pool")
    if pool is not None:
        check_pool(reading, pool)
        rows = [row for row in rows if row.pool == pool]
    total = len(rows)
    wanted = query.get("q", "").strip()
    if wanted:
        low, whole = wanted.lower(), masking.label(wanted)
        labels = [(row.label(masking) or row.pool, row) for row in rows]
        rows = [row for label, row in labels if low in label.lower() or label == whole]
    sort = query.get("sort", "busy")
    if sort != "key" and sort not in _ORDERS:
        raise RefusedError(400, f"sort={sort[:100]!r}: expected one of key, {', '.join(_ORDERS)}.")
    offset, limit = _number(query, "offset", 0), min(_number(query, "limit", 100), MOST_ROWS)
    # Rows that are equal stay in the order in which the keys were made, so that they do not jump about.
    by_label = lambda row: (row.label(masking) or "", row.pool)  # noqa: E731 - beside the other orders
    rows = sorted(rows, key=_ORDERS.get(sort, by_label), reverse=query.get("desc", "1") == "1")
    offset = max(min(offset, len(rows) - limit), 0)
    shown = [row.as_json(masking) for row in rows[offset : offset + limit]]
    return {"total": total, "matching": len(rows), "offset": offset, "rows": shown}


def check_pool(reading: Reading, pool: str) -> None:
    """
    Check the name of a pool.

    Raises:
        RefusedError: There is none of this name.
    """
    names = [each["name"] for each in reading.pools]
    if pool not in names:
        there = f"There are {', '.join(names[:20])}." if names else "There are no pools."
        raise RefusedError(404, f"No pool of this process has the name {pool[:100]!r}. {there}")


def find_row(reading: Reading, pool: str | None, label: str | None, masking: Masking) -> Row:
    """
    The row of a pool's key, named as it is shown or as it is; of a pool without keys, `label` is `None`.

    Raises:
        RefusedError: There is none.
    """
    if pool is None:
        raise RefusedError(400, "Say which pool: pool=NAME, and key=KEY if it has keys.")
    check_pool(reading, pool)
    is_keyed = next(each["is_keyed"] for each in reading.pools if each["name"] == pool)
    if label is None and is_keyed:
        raise RefusedError(400, f"The pool {pool!r} has keys: say which, key=KEY.")
    if label is not None and not is_keyed:
        raise RefusedError(400, f"The pool {pool!r} has no keys: leave out key={label[:100]!r}.")
    rows = [row for row in reading.rows if row.pool == pool]
    for wanted in (label, label and masking.label(label)):
        for row in rows:
            if row.label(masking) == wanted:
                return row
    assert label is not None  # a pool without keys has its row
    raise RefusedError(
        404, f"The pool {pool!r} has no key {label[:100]!r} now: it was never used here, was closed, or was evicted."
    )


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise RefusedError(400, f"{name}={text[:100]!r}: expected a whole number, 0 or more.")
    return int(text)
