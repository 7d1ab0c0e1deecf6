"""The surroundings that the documents' examples are written for."""

import pytest


@pytest.fixture
def documented_environment(lakebase_local, monkeypatch):
    """
    A local Lakebase in the environment variables that a Databricks App finds; returns it.

    No other variable of this kind is set, so an example cannot reach another database or workspace.
    """
    lakebase_local.add_user("app@corp.example")
    config = lakebase_local.config("app@corp.example")
    for name in (
        "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "DATABRICKS_CONFIG_PROFILE",
        "PGPASSWORD", "PGSERVICE", "PGAPPNAME", "PGOPTIONS",
    ):  # fmt: skip
        monkeypatch.setenv(name, "")  # so that what an example sets is undone as well
        monkeypatch.delenv(name)
    here = {
        "DATABRICKS_HOST": lakebase_local.workspace_url,
        "DATABRICKS_CONFIG_FILE": "/dev/null",
        "LAKEBASE_ENDPOINT": lakebase_local.endpoint,
        "PGHOST": config.host,
        "PGPORT": config.port,
        "PGDATABASE": config.database,
        "PGUSER": config.user,
        "PGSSLMODE": config.ssl_mode,
        "PGSSLROOTCERT": lakebase_local.ca_file,
    }
    for name, value in here.items():
        monkeypatch.setenv(name, str(value))
    return lakebase_local
