"""What the source says about imports, read without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module or name."""

    module: str  # as written after `import` or `from`, made absolute
    name: str | None  # the name after `from … import`; None for `import …`
    line: int
    at_module_level: bool
    for_types_only: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file of the tree."""

    path: Path

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        parts = list(self.path.relative_to(ROOT).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def tree(self) -> ast.Module:
        return _parse(self.path)

    @property
    def lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines()

    def imports(self) -> list[Import]:
        """Every import of the file, wherever it stands."""
        return _imports(self)


def sources(*folders: str) -> list[Source]:
    """The Python files below these folders of the tree, sorted; a folder that is not there has none."""
    return [Source(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def module_file(module: str) -> Source | None:
    """The file that defines a module of this tree, or `None` for anything else."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return Source(path)
    return None


def literal_all(source: Source) -> list[str]:
    """The strings of a file's `__all__`, which must be a plain literal."""
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    msg = f"{source.where} has no __all__"
    raise AssertionError(msg)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _imports(source: Source) -> list[Import]:
    collector = _Collector(source)
    collector.visit(source.tree)
    return collector.found


class _Collector(ast.NodeVisitor):
    def __init__(self, source: Source) -> None:
        self.found: list[Import] = []
        self._source = source
        self._functions = 0
        self._types_only = 0

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815
    visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_If(self, node: ast.If) -> None:
        if not ast.unparse(node.test).endswith("TYPE_CHECKING"):
            self.generic_visit(node)
            return
        self._types_only += 1
        for child in node.body:
            self.visit(child)
        self._types_only -= 1
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, None, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            package = self._source.module.split(".")
            if self._source.path.name != "__init__.py":
                package = package[:-1]
            package = package[: len(package) - (node.level - 1)]
            module = ".".join([*package, module]) if module else ".".join(package)
        for alias in node.names:
            self._add(module, alias.name, node)

    def _add(self, module: str, name: str | None, node: ast.stmt) -> None:
        self.found.append(Import(module, name, node.lineno, self._functions == 0, self._types_only > 0))
