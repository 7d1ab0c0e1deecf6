"""What `lakebase top` prints, made to fit 80 columns."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ._top_source import SourceError

if TYPE_CHECKING:
    from ._top_source import Source

__all__ = ["Watch", "print_once", "rendered"]

_USED, _OPENING, _IDLE, _CLOSING, _FREE = "█", "▓", "▒", "░", "·"
_COLOURS = {_USED: "blue", _OPENING: "yellow", _IDLE: "cyan", _CLOSING: "bright_black", _FREE: "bright_black"}
# Of each, those that matter most: the rest of the screen is for keys.
_BUDGETS = 3
_POOLS = 8
_PEOPLE = 5
_EVENTS = 5


def print_once(shown: dict[str, Any], name: str) -> None:
    """Print all of it, for people and scripts; without colours where no terminal is."""
    console = Console(highlight=False)
    console.print(rendered(shown, name, state=""))


class Watch:
    """
    Shows a source until `q` or Ctrl-C, and leaves the terminal as it was.

    Args:
        source: What to watch.
        shown: What it said first.
        interval: Seconds between two looks.
        sort: The order to begin with.
        sorts: All orders.
    """

    def __init__(
        self, source: Source, shown: dict[str, Any], *, interval: float, sort: str, sorts: Sequence[str]
    ) -> None:
        self._source = source
        self._shown = shown
        self._interval = interval
        self._sort = sort
        self._sorts = sorts
        self._state = ""
        self._is_paused = False

    def run(self) -> None:
        """Blocks until the user has seen enough."""
        try:
            self._run()
        except KeyboardInterrupt:
            pass  # one of the two ways to quit

    def _run(self) -> None:
        console = Console(highlight=False)
        with _keys() as fd, Live(self._screen(console), console=console, screen=True, auto_refresh=False) as live:
            at = time.monotonic()
            while True:
                at += self._interval
                while (left := at - time.monotonic()) > 0:
                    key = _read_key(fd, left)
                    if key in {"q", "Q"}:
                        return
                    self._obey(key)
                    live.update(self._screen(console), refresh=True)
                if not self._is_paused:
                    self._look()
                live.update(self._screen(console), refresh=True)
                at = max(at, time.monotonic() - self._interval)

    def _obey(self, key: str) -> None:
        if key == " ":
            self._is_paused = not self._is_paused
            self._state = "paused" if self._is_paused else ""
        elif key == "s":
            self._sort = self._sorts[(self._sorts.index(self._sort) + 1) % len(self._sorts)]
            self._look()

    def _look(self) -> None:
        try:
            self._shown = self._source.read(sort=self._sort)
            self._state = ""
        except SourceError as error:  # an app restarts; the last numbers stay in sight
            self._state = str(error)

    def _screen(self, console: Console) -> RenderableType:
        hint = f"q quits · space pauses · s sorts (by {self._sort})"
        return rendered(self._shown, self._source.name, state=self._state or hint, lines=console.height)


def rendered(shown: dict[str, Any], name: str, *, state: str, lines: int | None = None) -> RenderableType:
    """
    The screen.

    Args:
        shown: What the source said.
        name: Of the source.
        state: The last line, such as what the keys do.
        lines: How many there are; `None` is no limit.
    """
    parts = list(_local(shown["local"], name) if "local" in shown else _page(shown, name, lines))
    if state:
        parts.append(Text(state, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


# --- a live page -----------------------------------------------------------------------------------------------------


def _page(shown: dict[str, Any], name: str, lines: int | None) -> Iterator[RenderableType]:
    at = time.strftime("%H:%M:%S", time.localtime(shown["at"]))
    yield _line(("Pools ", "bold"), (f"{name}  process {shown['process']['pid']}, {at}", "dim"))
    for budget in shown["budgets"][:_BUDGETS]:
        limit = budget["limit"]
        taken = f" {budget['taken']} of {_number(limit)} places"
        yield _line(("budget ", "bold"), *_bar(budget, limit, 30), (taken, ""), *_waiting(budget["waiting"]))
    yield (pools := _pools(shown["pools"]))
    people = [*_people(shown["holders"], shown["holding"], "held", "HELD FOR"),
              *_people(shown["waiters"], shown["waiting"], "waiting", "WAITS FOR")]  # fmt: skip
    events = list(_events(shown["events"]))
    budgets = min(len(shown["budgets"]), _BUDGETS)
    others = 4 + budgets + _height(pools) + len(events) + sum(map(_height, people))
    room = None if lines is None else max(lines - others, 3)
    yield _rows(shown["keys"], room)
    yield from people
    yield from events


def _pools(pools: list[dict[str, Any]]) -> Table:
    table = _table("POOL", "KEYS", "USED", "IDLE", "OPEN", "WAIT", "ACQ/S", "MADE", "LATE", "WAIT P50", "P99")
    busiest = sorted(pools, key=lambda pool: (-pool["waiting"], -pool["used"], pool["name"]))
    for pool in busiest[:_POOLS]:
        wait = pool["wait"]
        table.add_row(
            _cell(pool["name"]),
            _number(pool["keys"]) if pool["is_keyed"] else "–",
            *(_number(pool[name]) for name in ("used", "idle", "opening")),
            _alarm(pool["waiting"]),
            f"{pool['rate']:.0f}",
            _number(pool["created"]),
            _alarm(pool["timeouts"]),
            seconds(wait["p50"] if wait["count"] else None),
            seconds(wait["p99"] if wait["count"] else None),
        )
    if len(pools) > _POOLS:
        table.add_row(Text(f"and {len(pools) - _POOLS:,} more", style="dim"))
    return table


def _rows(keys: dict[str, Any], room: int | None) -> Table:
    title = "KEY" if keys["matching"] == keys["total"] else f"KEY ({keys['matching']:,} of {keys['total']:,})"
    table = _table(title, "CONNECTIONS", "USED", "WAIT", "ACQUIRED", "MADE", "LATE", left=2)
    rows = keys["rows"][:room]
    for row in rows:
        label = row["key"] if row["key"] is not None else row["pool"]
        state = "" if row["state"] == "running" else f" {row['state']}"
        table.add_row(
            _cell(f"{label}{state}"),
            Text.assemble(*_bar(row, row["max_size"], 16)),
            f"{row['used']}/{_number(row['max_size'])}",
            _alarm(row["waiting"]),
            *(_number(row[name]) for name in ("acquired", "created")),
            _alarm(row["timeouts"]),
        )
    if keys["matching"] > len(rows):
        table.add_row(Text(f"and {keys['matching'] - len(rows):,} more", style="dim"))
    return table


def _people(people: list[dict[str, Any]], number: int, word: str, heading: str) -> Iterator[RenderableType]:
    if not people:
        yield Text(f"none {word}", style="dim")
        return
    table = _table(heading, "REQUEST", "KEY", "WHERE", left=4)
    for one in people[:_PEOPLE]:
        # What is borrowed for a request, as injection does, has no line of its own, and its task has only a number.
        where = one["site"] or ("for the request" if one["request"] else one["who"]) or "not noted"
        table.add_row(seconds(one["age"]), _cell(one["request"] or "–"), _cell(one["key"] or one["pool"]), _cell(where))
    if number > _PEOPLE:
        table.add_row(Text(f"{number - _PEOPLE:,} more", style="dim"))
    yield table


def _events(events: list[dict[str, Any]]) -> Iterator[Text]:
    for event in events[-_EVENTS:][::-1]:
        yield _line((time.strftime("%H:%M:%S ", time.localtime(event["at"])), "dim"), (event["text"], ""))


# --- a local Lakebase ------------------------------------------------------------------------------------------------


def _local(shown: dict[str, Any], name: str) -> Iterator[RenderableType]:
    yield _line((name, "bold"), (f"  {shown['state']}, process {shown['pid']}", "dim"))
    counts = f"connections: {shown['open']:,}; so far logins: {shown['total']:,}, credentials: {shown['minted']:,}"
    yield Text(counts)
    table = _table("USER", "CONNECTIONS", "NOW", "LOGINS", "CREDENTIALS", left=2)
    most = max([user[0] for user in shown["users"].values()], default=0)
    for user, (now, total, minted) in sorted(shown["users"].items(), key=lambda item: (-item[1][0], item[0])):
        bar = Text((_USED * now)[:20] if most <= 20 else _USED * round(20 * now / most), style="blue")
        table.add_row(_cell(user), bar, *(f"{number:,}" for number in (now, total, minted)))
    yield table


# --- parts -----------------------------------------------------------------------------------------------------------


def _table(*titles: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    for number, title in enumerate(titles):
        is_left = number < left
        table.add_column(
            title,
            justify="left" if is_left else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_left and "CONN" not in title and "FOR" not in title else None,
        )
    return table


def _bar(one: dict[str, Any], limit: int | None, width: int) -> Iterator[tuple[str, str]]:
    """Cells of used, opening, idle, closing and free places; each cell is one place if they fit."""
    counts = [one["used"], one["opening"], one["idle"], one["closing"]]
    total = max(limit or 0, sum(counts), 1)
    cells, done, used = min(total, width), 0, 0
    for count, mark in zip(counts, (_USED, _OPENING, _IDLE, _CLOSING), strict=True):
        done += count
        upto = done if total <= width else max(round(done * cells / total), used + (count > 0))
        yield mark * (upto - used), _COLOURS[mark]
        used = upto
    yield _FREE * (cells - used), _COLOURS[_FREE]


def _waiting(number: int) -> list[tuple[str, str]]:
    return [(f"  {number:,} waiting", "bold red")] if number else []


def _alarm(number: int) -> Text:
    return Text(f"{number:,}", style="bold red" if number else "")


def _cell(text: str) -> Text:
    """As it is: rich reads no markup in it, and no character moves the cursor."""
    return Text("".join(character if character.isprintable() else "?" for character in text))


def _line(*parts: tuple[str, str]) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(_cell(text).plain, style)
    return line


def _number(value: int | None) -> str:
    return "∞" if value is None else f"{value:,}"


def seconds(value: float | None) -> str:
    """A duration, in at most seven characters."""
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"


def _height(part: RenderableType) -> int:
    return part.row_count + 1 if isinstance(part, Table) else 1


# --- the keyboard ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Have the keyboard's keys come one by one; `None` where there is no keyboard."""
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C quits
        yield None
        return
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (OSError, ValueError, termios.error):
        yield None
        return
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _read_key(fd: int | None, timeout: float) -> str:
    """The next key, or an empty text after a while."""
    if fd is None:
        time.sleep(timeout)
        return ""
    ready, _, _ = select.select([fd], [], [], timeout)
    return os.read(fd, 1).decode("utf-8", "replace") if ready else ""
