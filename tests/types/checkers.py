"""
Type checkers, and the code they are given: files of this folder, the examples, and the Python of the documents.

The blocks of a document that build on one another become one file. Each line of it has the number that it has in the
document, so an error is reported where it stands.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import PYTHONS, ROOT

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})(\w*)( title=\".*\")?\s*$")
CLEAR = "<!--- clear-namespace -->"

MYPY_INI = """
[mypy]
strict = true
mypy_path = {root}
follow_imports = silent

[mypy-django.*]
ignore_missing_imports = true
"""


@dataclass(frozen=True)
class Error:
    """What a checker does not accept, and where."""

    checker: str
    path: str  # below the tree, or as it was given
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text} ({self.checker})"


@dataclass(frozen=True)
class Program:
    """A file for the checkers: the original, or what was taken out of a document."""

    path: Path
    origin: str

    @classmethod
    def of(cls, path: Path) -> Program:
        return cls(path, path.relative_to(ROOT).as_posix())


def python_of(text: str) -> list[list[str]]:
    """
    The Python of a document, line by line as it stands there, with empty lines for all else.

    One list for each part that shares its names.
    """
    parts: list[list[str]] = []
    lines = text.splitlines()
    current = [""] * len(lines)
    end, block = None, []
    for number, line in enumerate(lines):
        opening = FENCE.match(line)
        if end is not None and line.strip() == end:
            first = number - len(block)
            current[first:number] = textwrap.dedent("\n".join(block)).split("\n") if block else []
            end, block = None, []
        elif end is not None:
            block.append(line)
        elif line.strip() == CLEAR:
            parts.append(current)
            current = [""] * len(lines)
        elif opening and opening[3] in PYTHONS and not opening[4]:
            end = opening[2]
    return [part for part in [*parts, current] if any(part)]


def programs_of(page: Path, origin: str, folder: Path) -> list[Program]:
    """Write the Python of a document into a folder, a file for each part that shares its names."""
    found = []
    for number, lines in enumerate(python_of(page.read_text(encoding="utf-8")), 1):
        path = folder / f"{re.sub('[-/]', '_', origin.removesuffix('.md')).lower()}_{number}.py"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found.append(Program(path, origin))
    return found


def mypy(programs: list[Program], folder: Path) -> list[str]:
    """The command that checks these with mypy --strict, as a user's, without this library's own settings."""
    config = folder / "mypy.ini"
    config.write_text(MYPY_INI.format(root=ROOT), encoding="utf-8")
    options = ["--config-file", str(config), "--cache-dir", str(folder / "mypy"), "--python-executable", sys.executable]
    shown = ["--show-absolute-path", "--no-error-summary", "--no-pretty", "--hide-error-context", "--no-color-output"]
    return [sys.executable, "-m", "mypy", *options, *shown, *(str(program.path) for program in programs)]


def pyright(programs: list[Program], folder: Path) -> list[str]:
    """The command that checks these with pyright as it comes."""
    config = folder / "pyrightconfig.json"
    include = [os.path.relpath(program.path, folder) for program in programs]
    folders = sorted({str(program.path.parent) for program in programs} - {str(ROOT)})
    config.write_text(json.dumps({"include": include, "extraPaths": [str(ROOT), *folders]}), encoding="utf-8")
    return [sys.executable, "-m", "pyright", "--project", str(config), "--pythonpath", sys.executable, "--outputjson"]


def check(programs: list[Program], folder: Path) -> list[Error]:
    """
    All that mypy and pyright find in these files; one process each, at the same time.

    Args:
        programs: The files.
        folder: For the settings of the two, and for what mypy keeps about libraries.
    """
    origins = {str(program.path): program.origin for program in programs}
    commands = {"mypy": mypy(programs, folder), "pyright": pyright(programs, folder)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MYPY", "PYTHONPATH"))}
    running = {
        name: subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name, command in commands.items()
    }
    errors: list[Error] = []
    for name, process in running.items():
        out, err = process.communicate()
        assert process.returncode in {0, 1}, f"{name} failed:\n{out}\n{err}"
        read = errors_of_mypy if name == "mypy" else errors_of_pyright
        errors += [Error(name, origins.get(path, path), line, text) for path, line, text in read(out)]
    return sorted(errors, key=lambda error: (error.path, error.line, error.checker))


def errors_of_mypy(out: str) -> list[tuple[str, int, str]]:
    found = re.findall(r"^(.+?):(\d+): error: (.+)$", out, flags=re.MULTILINE)
    return [(path, int(line), text) for path, line, text in found]


def errors_of_pyright(out: str) -> list[tuple[str, int, str]]:
    return [
        (found["file"], found["range"]["start"]["line"] + 1, found["message"].replace("\n", " "))
        for found in json.loads(out)["generalDiagnostics"]
        if found["severity"] == "error"
    ]
