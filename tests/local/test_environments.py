"""What each client is told: written so that the program that reads it gets the values, spaces and quotes included."""

import re
import subprocess

import psycopg
import pytest

from lakebase.local.environments import write_environment

VARIABLES = {
    "PGHOST": "127.0.0.1",
    "PGSSLROOTCERT": "/tmp/a b/it's $HOME/ca.pem",
    "DATABRICKS_CLIENT_SECRET": 'x"y\\z',
}


def test_a_shell_that_evaluates_it_has_the_values():
    script = write_environment("python", VARIABLES) + "\nenv -0"
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
    assert {f"{name}={value}" for name, value in VARIABLES.items()} <= set(found)


@pytest.mark.parametrize("client", ["python", "node"])
def test_a_shell_that_evaluates_a_second_one_has_its_login_alone(lake, user, client):
    """The SDK refuses the app's login and a user's in one environment."""
    app, his = lake.environment(client), lake.environment(client, user)
    for first, second in ((app, his), (his, app)):
        script = "\n".join(["set -eu", *(write_environment(client, each) for each in (first, second)), "env -0"])
        found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
        logins = {"DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"}
        assert logins & {line.partition("=")[0] for line in found} == logins & second.keys()


def test_what_has_no_login_to_the_workspace_unsets_none(lake, user):
    assert "unset" not in write_environment("psql", lake.environment("psql", user))
    assert "unset" not in write_environment("dotenv", lake.environment("dotenv", user))


def test_a_dotenv_file_holds_the_values(tmp_path):
    dotenv = pytest.importorskip("dotenv", reason="python-dotenv is not installed")
    file = tmp_path / ".env"
    file.write_text(write_environment("dotenv", VARIABLES), encoding="utf-8")
    assert dotenv.dotenv_values(file, interpolate=False) == VARIABLES


def test_dockers_file_has_each_value_as_it_is_and_says_how_to_use_it():
    usage, *lines = write_environment("docker", VARIABLES).splitlines()
    assert lines == [f"{name}={value}" for name, value in VARIABLES.items()]
    assert usage.startswith("# docker run --network host --env-file FILE -v ")


@pytest.mark.parametrize("client", ["python", "node", "dotenv", "docker"])
def test_an_app_mints_for_itself_or_for_a_user(lake, user, client):
    app = lake.environment(client)
    assert (app["DATABRICKS_CLIENT_ID"], app["PGUSER"]) == (lake.client_id, lake.client_id)
    assert "PGPASSWORD" not in app
    his = lake.environment(client, user)
    assert (his["DATABRICKS_TOKEN"], his["PGUSER"]) == (lake.token(user), user)
    assert "DATABRICKS_CLIENT_SECRET" not in his
    assert (his["PGSSLMODE"], "NODE_EXTRA_CA_CERTS" in his) == (
        ("require", True) if client == "node" else ("verify-full", False)
    )


def test_clients_that_mint_nothing_get_a_password(lake, user, monkeypatch):
    for name in ("PGSERVICE", "PGOPTIONS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in lake.environment("psql", user).items():
        monkeypatch.setenv(name, value)
    with psycopg.connect() as connection:
        assert connection.execute("select current_user").fetchone() == (user,)
    java = lake.environment("jdbc")
    assert java["JDBC_DATABASE_USERNAME"] == lake.admin_user
    assert re.fullmatch(
        r"jdbc:postgresql://[\d.]+:\d+/\w+\?sslmode=verify-full&sslrootcert=\S+", java["JDBC_DATABASE_URL"]
    )
    assert java["JDBC_DATABASE_PASSWORD"] not in java["JDBC_DATABASE_URL"]


def test_another_client_is_refused(lake):
    with pytest.raises(ValueError, match="client='ruby': expected one of python, node, psql, jdbc, dotenv, docker"):
        lake.environment("ruby")
