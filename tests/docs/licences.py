"""
The licences of what the packages and their extras install, as docs/licences.md lists them.

`python -m tests.docs.licences` writes the table; the test beside it compares the table with the metadata of what is
installed.
"""

from __future__ import annotations

import tomllib
from importlib import metadata

from packaging.requirements import Requirement

from tests.docs.pages import ROOT, tables

PAGE = ROOT / "docs" / "licences.md"
HEAD = "| Distribution | Comes with | Licence |"
# As their classifiers say, in the words of SPDX.
SPDX = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
}


def dependencies() -> dict[str, str]:
    """What the project's requirements name, and the first extra that does so; empty for every installation."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, ours = settings["project"], settings["tool"]["lakebase-pooling"]["extras-for-developers"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name not in ours}
    found: dict[str, str] = {}
    for extra, wanted in {"": project["dependencies"], **extras}.items():
        for line in wanted:
            requirement = Requirement(line)
            name = requirement.name
            names = [f"{name}-{each}" for each in requirement.extras] if name == "psycopg" else []
            for each in names or [name]:
                if each != project["name"]:
                    found.setdefault(each, extra)
    return found


def licence_of(distribution: str) -> str | None:
    """What its metadata says, or `None` if it is not installed."""
    try:
        said = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return None
    if expression := said.get("License-Expression"):
        return expression
    classified = [
        line.rpartition(" :: ")[2] for line in said.get_all("Classifier", []) if line.startswith("License ::")
    ]
    named = [SPDX.get(name, name) for name in classified if name != "OSI Approved"]
    return " OR ".join(named) or said.get("License", "").partition("\n")[0] or "unknown"


def listed() -> dict[str, str]:
    """What the page says: the licence of each distribution."""
    (table,) = tables(PAGE)
    return {cells[0].content.strip("`"): cells[2].content for cells in table.rows}


def show() -> None:
    """Write the table into the page; a distribution that is not installed keeps the licence that it has there."""
    before = listed()
    rows = []
    for name, extra in sorted(dependencies().items()):
        where = f"the extra `{extra}`" if extra else "every installation"
        licence = licence_of(name) or before.get(name, "unknown")
        rows.append(f"| `{name}` | {where} | {licence} |")
    text = PAGE.read_text("utf-8").partition(HEAD)[0]
    PAGE.write_text(text + "\n".join([HEAD, "| --- | --- | --- |", *rows]) + "\n", "utf-8")


if __name__ == "__main__":
    show()
