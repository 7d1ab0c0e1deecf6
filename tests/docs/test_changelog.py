"""CHANGELOG.md has the form of Keep a Changelog, and tells of the version that is being made."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.changelog import notes, sections
from tests.docs.pages import ROOT

KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_newest_version_is_that_of_the_package_or_is_being_made():
    found = sections()
    package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    released = [section.version for section in found if section.version != "Unreleased"]
    assert found[0].version == "Unreleased", "the next change goes there"
    assert released[:1] == [package] or (package not in released and found[0].text)


def test_versions_are_dated_and_the_newest_comes_first():
    released = sections()[1:]
    assert [section.version for section in released if section.day is None] == []
    assert [section.version for section in released] == sorted(
        (section.version for section in released), key=number, reverse=True
    )
    days = [section.day or "" for section in released]
    assert days == sorted(days, reverse=True)


def test_a_section_has_each_kind_of_change_once():
    for section in sections():
        kinds = re.findall(r"^### (.+)$", section.text, flags=re.MULTILINE)
        assert kinds == sorted(kinds, key=KINDS.index), section.version
        assert len(kinds) == len(set(kinds)), section.version


def test_a_section_ends_where_the_next_one_begins():
    older = "## [1.1.0] - 2026-01-02\n\n### Added\n\n- b\n\n## [1.0.0] - 2026-01-01\n- a\n"
    found = sections(f"# Changelog\n\n## [Unreleased]\n\n{older}")
    assert [(section.version, section.day, section.text) for section in found] == [
        ("Unreleased", None, ""),
        ("1.1.0", "2026-01-02", "### Added\n\n- b"),
        ("1.0.0", "2026-01-01", "- a"),
    ]


def test_a_release_of_a_version_without_a_section_is_refused():
    with pytest.raises(SystemExit, match=r"no section ## \[0\.0\.1\]"):
        notes("0.0.1")
