"""The names that `docs/api.md` lists are the names that the packages export."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.architecture.source import ROOT, literal_all, module_file
from tests.docs.pages import sections, tables

API = ROOT / "docs" / "api.md"
PACKAGES = ["pooling", "pooling.di", "lakebase", "lakebase.local"]
# Imported by their own name, since they need more installed, or are for few.
MODULES = [
    *(f"pooling.web.{file.stem}" for file in sorted((ROOT / "pooling" / "web").glob("[!_]*.py"))),
    "pooling.leases",
    "pooling.locks",
    "pooling.simulation",
    "pooling.telemetry",
    "pooling.telemetry.otel",
    "pooling.telemetry.prometheus",
    "lakebase.django.base",
    "lakebase.doctor",
    "lakebase.limits",
    "lakebase.roles",
    "lakebase.sqlalchemy",
    "lakebase.streamlit",
    "lakebase.local.pytest_plugin",
]

# Their frameworks are not in the environment of the tree, where they are read and not imported.
ELSEWHERE = {"lakebase.streamlit"}

# Promised to users; a row may be added to the page, never one of these taken away.
CONTRACT = {
    "pooling": """
        PoolFactory Poolable PoolingServiceOptions PoolingService AsyncPoolingService PooledValue get_pooled_value
        create_pooled_binding_factory RequestContext
        PoolingError PoolTimeoutError PoolClosedError PoolExhaustedError CreateError ReleaseError RequestContextError
        ConfigurationError
    """,
    "pooling.di": "Container Pool AsyncPool Pooled inject Inject",
    "lakebase": """
        LakebasePoolConfig create_lakebase_pool create_async_lakebase_pool LakebasePool AsyncLakebasePool
        LakebasePoolManager AsyncLakebasePoolManager UserIdentity token_fingerprint
    """,
    "lakebase.local": "LocalLakebase",
}


def documented(package: str) -> dict[str, str]:
    """The rows of the package's section: the name in the first column, and what is said of it."""
    found = tables(API, f"`{package}`")
    names = [name.partition("(")[0] for table in found for name, *_ in table.column(0)]
    assert len(names) == len(set(names)), f"listed twice: {sorted({n for n in names if names.count(n) > 1})}"
    return dict(zip(names, (what.content for table in found for _, what in table.rows), strict=True))


def exported(package: str) -> set[str]:
    if package in ELSEWHERE:
        return set(literal_all(module_file(package)))
    return set(importlib.import_module(package).__all__)


def suggestion(package: str, names: set[str]) -> str:
    module = importlib.import_module(package)
    docs = {name: inspect.getdoc(getattr(module, name)) or "" for name in sorted(names)}
    rows = [f"| `{name}` | {doc.strip().partition(chr(10))[0]} |" for name, doc in docs.items()]
    return f"add to '## `{package}`' of docs/api.md, in a row each:\n" + "\n".join(rows)


@pytest.mark.parametrize("package", [*PACKAGES, *MODULES])
def test_every_exported_name_is_documented(package):
    missing = exported(package) - set(documented(package))
    assert not missing, suggestion(package, missing)


@pytest.mark.parametrize("package", [*PACKAGES, *MODULES])
def test_every_documented_name_is_exported(package):
    assert not set(documented(package)) - exported(package), "documented, but not in __all__"
    if package not in ELSEWHERE:
        module = importlib.import_module(package)
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_promised_names_are_there(package):
    assert not set(CONTRACT[package].split()) - set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", [each for each in [*PACKAGES, *MODULES] if each not in ELSEWHERE])
def test_every_exported_class_and_function_has_a_docstring_of_its_own(package):
    module = importlib.import_module(package)
    things = [getattr(module, name) for name in module.__all__]
    classes_and_functions = [thing for thing in things if inspect.isclass(thing) or inspect.isfunction(thing)]
    assert [thing.__name__ for thing in classes_and_functions if not thing.__doc__] == []


def test_no_section_of_the_page_is_of_something_else():
    assert sorted(sections(API)) == sorted(f"`{name}`" for name in [*PACKAGES, *MODULES, "pooling.web"])
