"""The pytest plugin, in test runs in their own processes."""

import os
import subprocess
import sys

import pytest

from tests.local.owner import ROOT

CONFTEST = """
    import importlib.util
    def pytest_addoption(parser, pluginmanager):
        if not pluginmanager.has_plugin("lakebase_local"):
            pluginmanager.import_plugin("lakebase.local.pytest_plugin")
"""


TESTS = """
    import psycopg
    import pytest

    @pytest.fixture
    def connection(lakebase_user):
        kwargs = lakebase_user.config().connect_kwargs()
        with psycopg.connect(**kwargs, password=lakebase_user.lake.mint(lakebase_user.name)) as connection:
            yield connection

    seen = []

    @pytest.mark.parametrize("turn", range(2))
    def test_each_test_has_its_own_user_on_one_database(connection, lakebase_user, lakebase_local, turn):
        assert connection.execute("select current_user").fetchone() == (lakebase_user.name,)
        assert lakebase_user.lake is lakebase_local
        assert lakebase_user.headers == {
            "X-Forwarded-Email": lakebase_user.name, "X-Forwarded-Access-Token": lakebase_user.token}
        assert (lakebase_user.name, lakebase_local.port) not in seen
        seen.append((lakebase_user.name, lakebase_local.port))
        assert len({port for _, port in seen}) == 1
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs pytest on those tests in another process."""
    import textwrap

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Without other packages' plugins, which take seconds to load; one test has pytest find this one by itself.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text(textwrap.dedent(CONFTEST))

    def ran(*arguments, tests=TESTS, **environment):
        (tmp_path / "test_app.py").write_text(textwrap.dedent(tests))
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return ran


def test_its_fixtures_give_tests_a_lakebase_and_users(run, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    result = run("-W", "default")  # other plugins may warn
    assert "2 passed" in result.stdout, result.stdout + result.stderr


def test_its_option_clashes_with_none_of_another_project(run, tmp_path):
    with (tmp_path / "conftest.py").open("a") as conftest:
        conftest.write("    parser.addoption('--postgres')\n")
    result = run(
        "--postgres=its-own",
        tests="def test_it(request): assert request.config.getoption('--postgres') == 'its-own'",
    )
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_it_loads_next_to_nothing_until_a_fixture_is_asked_for():
    code = """
import sys, pytest
before = set(sys.modules)
import lakebase.local.pytest_plugin
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(sorted(name for name in new if name not in sys.stdlib_module_names))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "['lakebase']", "neither the driver, nor what makes certificates, nor the SDK"


def test_nothing_starts_for_tests_that_use_no_fixture_of_it(run):
    result = run("--lakebase-postgres=/nowhere", tests="def test_nothing(): pass")
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_a_missing_postgres_is_an_error_and_no_skip(run):
    result = run("--lakebase-postgres=/nowhere")
    assert "2 errors" in result.stdout
    assert "no Postgres found for postgres='/nowhere'" in result.stdout
    assert result.returncode == 1


def test_without_a_docker_engine_docker_is_an_error_and_no_skip(run, tmp_path):
    result = run("--lakebase-postgres=docker", DOCKER_HOST=f"unix://{tmp_path}/no-engine.sock")
    assert "2 errors" in result.stdout, result.stdout + result.stderr
    assert "no Docker engine answers" in result.stdout
    assert "skipped" not in result.stdout


def system_postgres():
    from lakebase.local import LocalLakebaseError
    from lakebase.local.postgres import find_binaries

    try:
        return find_binaries("system")
    except LocalLakebaseError:
        return None


@pytest.mark.skipif(system_postgres() is None, reason="no Postgres is installed by the system's packages")
def test_the_systems_postgres_serves_as_well(run):
    result = run("--lakebase-postgres=system")
    assert "2 passed" in result.stdout, result.stdout + result.stderr


def docker_answers():
    from lakebase.local import LocalLakebaseError
    from lakebase.local.postgres.container import check_docker

    try:
        check_docker()
    except LocalLakebaseError:
        return False
    return True


@pytest.mark.skipif(not docker_answers(), reason="no Docker engine answers on this machine")
def test_a_container_serves_as_well(run):
    result = run("--lakebase-postgres=docker")
    assert "2 passed" in result.stdout, result.stdout + result.stderr
