"""The tables of options and numbers in the engine's page are those of the dataclasses."""

from __future__ import annotations

import ast
import inspect
import math
from dataclasses import fields

from pooling import AsyncPoolingService, Histogram, PoolingService, PoolingServiceOptions, PoolStats
from tests.docs.pages import ROOT, code_in, paragraphs, tables

PAGE = ROOT / "docs" / "engine.md"


def shown(value: object) -> str:
    return "math.inf" if value == math.inf else repr(value).replace("'", '"')


def signature(text: str) -> inspect.Signature:
    """The signature that `name(…)` would have as a definition."""
    namespace: dict[str, object] = {}
    exec(compile(ast.parse(f"def {text}: ..."), "signature", "exec"), namespace)
    return inspect.signature(namespace[text.partition("(")[0]])


def test_the_table_of_options_has_every_option_with_its_default_in_their_order():
    (table,) = tables(PAGE, "Options")
    rows = [(name, default) for (name,), (default,) in zip(table.column(0), table.column(1), strict=True)]
    assert rows == [(field.name, shown(field.default)) for field in fields(PoolingServiceOptions)]


def test_stop_is_shown_with_its_parameters_and_defaults():
    code = [text for paragraph in paragraphs(PAGE, "Options") for text in code_in(paragraph)]
    (text,) = [text for text in code if text.startswith("stop(") and text != "stop()"]
    told = [(each.name, each.default, each.kind) for each in signature(text).parameters.values()]
    for service in (PoolingService, AsyncPoolingService):
        _, *parameters = inspect.signature(service.stop).parameters.values()
        assert told == [(each.name, each.default, each.kind) for each in parameters]


def test_the_table_of_statistics_has_every_field_once():
    (table,) = tables(PAGE, "Watching it")
    names = [name for cell in table.column(0) for name in cell]
    assert sorted(names) == sorted(field.name for field in fields(PoolStats))


def test_the_paragraph_on_histograms_names_all_that_one_has():
    told = [code_in(paragraph) for paragraph in paragraphs(PAGE, "Watching it")]
    (names,) = [names[1:] for names in told if names[:1] == ["Histogram"]]
    public = {name for name in dir(Histogram()) if not name.startswith("_")}
    assert {name.partition("(")[0] for name in names} == public - {"record", "add", "copy"}
