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
    "pooling.extras",
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
    "lakebase.spark",
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


# What `help()` shows of the classes that users meet first, their bases' members included, as far as it is defined here.
MEMBERS = {
    "pooling.PoolingService": """
        acquire acquire_nowait adjust available borrowed budget check checkpoint context count_in destroy
        expire factory has_checkpoint holders idle is_borrowed is_running lease name options pending release
        resize resume retire run size start stats stop suspend sweep waiters
    """,
    "pooling.KeyedPoolingService": """
        acquire acquire_nowait add_pool all_data budget close_key confirm destroy drop_key expire expire_all
        holders is_borrowed key_data keys last_used lease make_pool name open_key options pool release run
        start stats stop stop_closed sweep touch waiters
    """,
    "pooling.PoolBudget": """
        limit max_total resize squeeze used within
    """,
    "pooling.SharedBudget": """
        claim_time claims leased limit max_total resize squeeze store_error used within
    """,
    "pooling.PooledValue": """
        destroy expected forget note_loan release service value
    """,
    "pooling.Lease": """
        checkpoint run
    """,
    "pooling.RequestContext": """
        aacquire acheckpoint aclose acquire active checkpoint child close container current error get
        has_checkpoint has_ended is_closed name on_close parent require resolved served_by values
    """,
    "pooling.di.Container": """
        aget astart astop bind check cls_providers configure containers find get inherited_providers
        instance_type is_running providers request running start start_order stop wiring_config
    """,
    "pooling.di.Pool": """
        astart astop built configure container group is_async label members override ready related
        reset_last_overriding reset_override settings start stop
    """,
    "pooling.di.Managed": """
        astart astop built container group is_async label override ready related reset_last_overriding
        reset_override start stop
    """,
    "pooling.di.Pooled": """
        aget override related reset_last_overriding reset_override
    """,
    "pooling.di.PerRequest": """
        aget override related reset_last_overriding reset_override
    """,
    "lakebase.LakebasePool": """
        check close closed connection conninfo drain get_stats getconn holders host kwargs max_idle
        max_lifetime max_size max_waiting min_size open pop_stats putconn reconnect_failed reconnect_timeout
        resize retire schema timeout usage username wait waiters
    """,
    "lakebase.LakebasePoolManager": """
        budget close_all close_pool expire for_user get_pool has_pool holders keys size stats waiters
    """,
    "lakebase.RoutingPool": """
        check close closed connection current drain get_stats getconn max_size min_size open pop_stats putconn
        reconnect_failed resize wait
    """,
    "lakebase.UserScopedPool": """
        check checkpoint close closed connection drain get_stats getconn max_size min_size open pop_stats
        putconn reconnect_failed resize wait
    """,
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


def members(kind: type) -> set[str]:
    """The public members that a class has from the packages."""
    ours = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in {"pooling", "lakebase"}]
    return {name for base in ours for name in vars(base) if not name.startswith("_")}


@pytest.mark.parametrize("path", MEMBERS)
@pytest.mark.parametrize("twin", ["", "Async"])
def test_help_shows_what_is_for_users(path, twin):
    package, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(package), twin + name, None)
    if kind is None:
        assert twin, f"{path} is gone"
        return  # a class for both
    assert members(kind) == set(MEMBERS[path].split()), (
        "what users must not call begins with an underscore, or is a function of its module; list here what is for them"
    )


def test_no_section_of_the_page_is_of_something_else():
    assert sorted(sections(API)) == sorted(f"`{name}`" for name in [*PACKAGES, *MODULES, "pooling.web"])
