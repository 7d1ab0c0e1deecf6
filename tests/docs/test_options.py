"""The table of options is that of the pools."""

from __future__ import annotations

import dataclasses
import math
import re

from pooling import PoolingServiceOptions
from tests.docs.pages import ROOT


def test_the_table_has_every_option_with_its_default():
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    section = text[text.index("## Options") :].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| .+ \|$", section, flags=re.MULTILINE)
    told = {name: eval(default, {"math": math}) for name, default in rows}
    assert told == {field.name: field.default for field in dataclasses.fields(PoolingServiceOptions)}
