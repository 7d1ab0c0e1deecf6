"""The site leads to every page, and its reference shows every module that has public names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from tests.docs.pages import ROOT, links, sections

DOCS = ROOT / "docs"
SITE = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
REFERENCES = {path.relative_to(DOCS).as_posix() for path in (DOCS / "reference").glob("*.md")}
PAGES = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
RECIPES = {page for page in PAGES if page.startswith("recipes/")} - {"recipes/index.md"}


def entries(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else entries(value)


def test_the_navigation_has_each_page_once():
    found = list(entries(SITE["nav"]))
    assert sorted(found) == sorted(PAGES)


def test_a_page_with_a_picture_loads_mermaid_from_the_site():
    template = (ROOT / SITE["theme"]["custom_dir"] / "main.html").read_text("utf-8")
    (script,) = re.findall(r"<script src=\"\{\{ '([^']+)' \| url \}\}\">", template)
    put = (ROOT / "noxfile.py").read_text("utf-8")
    assert " / ".join(f'"{part}"' for part in ("site", *script.split("/"))) in put, "where `nox -s docs` puts it"


def test_the_first_page_leads_to_every_page():
    assert set(links(DOCS / "index.md")) >= PAGES - REFERENCES - RECIPES - {"index.md"}


def test_the_list_of_recipes_leads_to_every_recipe():
    assert {f"recipes/{link}" for link in links(DOCS / "recipes" / "index.md")} >= RECIPES


def test_the_list_for_language_models_has_every_page():
    listed = set(re.findall(r"\]\(([^)]+)\)", (DOCS / "llms.txt").read_text("utf-8")))
    assert listed == PAGES - REFERENCES - {"index.md"}


def test_the_reference_shows_every_module_that_has_public_names():
    named = {section.strip("`") for section in sections(DOCS / "api.md") if section.startswith("`")}
    shown = {
        line.removeprefix("::: ")
        for name in REFERENCES
        for line in (DOCS / name).read_text("utf-8").splitlines()
        if line.startswith("::: ")
    }
    assert shown == named - {"pooling.web"}  # which has none itself
