"""What begins with an underscore is used by the package that defines it, and by no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.source import Source, sources


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""


def defined(source: Source) -> Iterator[str]:
    """The private names that a file defines: functions, classes, attributes, and what `__slots__` lists."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            yield from (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))


def used(source: Source) -> Iterator[tuple[int, str, bool]]:
    """The lines with private attributes, and whether each is the object's own; also those given to `getattr`."""
    modules = {found.module for found in source.imports() if found.name is None}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in modules:
                yield node.lineno, node.attr, owner in {"self", "cls", "super()"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant) and is_private(str(argument.value)):
                    yield argument.lineno, argument.value, False


def reaching(files: list[Source]) -> list[str]:
    """Where a file uses a private attribute that only another package of these files defines, by inheritance or not."""
    owners: dict[str, set[str]] = {}
    for file in files:
        for name in filter(is_private, defined(file)):
            owners.setdefault(name, set()).update([package_of(file), top_of(file)])
    return [
        f"{file.where}:{line} uses {name} of {max(owners[name])}"
        for file in files
        for line, name, is_own in used(file)
        # A class may build on a class of its package's private parts.
        if name in owners and (top_of(file) if is_own else package_of(file)) not in owners[name]
    ]


def package_of(file: Source) -> str:
    return file.where.rpartition("/")[0]


def top_of(file: Source) -> str:
    return file.where.partition("/")[0] + "/"


def test_a_private_attribute_is_used_only_by_its_own_package():
    wrong = reaching(sources("pooling", "lakebase"))
    assert not wrong, "give it a name without an underscore, in a private module:\n" + "\n".join(wrong)


def test_a_planted_use_of_a_private_attribute_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.architecture.source.ROOT", tmp_path)
    texts = {
        "pooling/inner/pool.py": "class Pool:\n    __slots__ = ('_idle',)\n    def f(self): self._out = 1\n",
        "pooling/service.py": "class Service(Pool):\n    def g(self, pool): self._idle, pool._idle\n",
        "lakebase/pool.py": (
            "import os\nclass P(Service):\n    def h(self, p):\n"
            "        self._idle, os._out, p._theirs, p._\n        getattr(p, '_out')\n"
        ),
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = reaching([Source(tmp_path / name) for name in texts])
    assert {line.partition(" of ")[0] for line in found} == {
        "pooling/service.py:2 uses _idle",
        "lakebase/pool.py:4 uses _idle",
        "lakebase/pool.py:5 uses _out",
    }
    assert len(found) == 3
