"""The tables of options and numbers in the engine's page are those of the dataclasses."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import fields

from pooling import AsyncPoolingService, Histogram, PoolingService, PoolingServiceOptions, PoolStats
from tests.docs.pages import ROOT


def section(heading: str) -> str:
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def shown(value: object) -> str:
    return "math.inf" if value == math.inf else repr(value).replace("'", '"')


def test_the_table_of_options_has_every_option_with_its_default_in_their_order():
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| .+ \|$", section("Options"), flags=re.MULTILINE)
    assert rows == [(field.name, shown(field.default)) for field in fields(PoolingServiceOptions)]


def test_stop_is_shown_with_its_parameters_and_defaults():
    (text,) = re.findall(r"`stop\(([^)]*)\)` refuses", section("Options"))
    for service in (PoolingService, AsyncPoolingService):
        _, *parameters = inspect.signature(service.stop).parameters.values()
        timeout, drain = parameters
        assert (timeout.name, drain.name, drain.kind) == ("timeout", "drain", inspect.Parameter.KEYWORD_ONLY)
        assert text == f"timeout={timeout.default!r}, *, drain={drain.default!r}"


def test_the_table_of_statistics_has_every_field_once():
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .+ \|$", section("Watching it"), flags=re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"\w+", cell)]
    assert sorted(names) == sorted(field.name for field in fields(PoolStats))


def test_what_is_said_of_a_histogram_is_there():
    text = section("Watching it").partition("A `Histogram` has ")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)(?:\([^)]*\))?`", text))
    assert named == {name for name in dir(Histogram()) if not name.startswith("_")} - {"record", "copy"}
