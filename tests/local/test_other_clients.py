"""Clients that are not ours, unmodified, each started once with the environment that is printed for it."""

import json
import os
import subprocess
import sys

import pytest
import sqlalchemy

from lakebase.local import LocalLakebase, LocalLakebaseError
from tests.local import other_clients

USER = "ann@corp.example"


@pytest.fixture(scope="module")
def lake():
    """One on Lakebase's own port, where that is free: some clients know no other."""
    try:
        lake = LocalLakebase(port=5432, pooler="off").start()
    except LocalLakebaseError:
        lake = LocalLakebase(pooler="off").start()
    with lake:
        lake.add_user(USER)
        yield lake


def run(lake, client, command, *, user=None, cwd=None, **environment):
    """What a program prints, with the variables for that client and none for others."""
    others = ("PG", "DATABRICKS_", "LAKEBASE_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    ended = subprocess.run(
        command,
        env={**clean, **lake.environment(client, user), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_psql(lake):
    assert run(lake, "psql", [other_clients.psql(), "-XAtc", "select current_user"], user=USER) == USER


DRIVER = """
import { createLakebasePool } from "@databricks/lakebase";
const pool = createLakebasePool({ max: 2 });
const found = await pool.query("select current_user as name");
console.log(found.rows[0].name);
await pool.end();
"""


def test_databricks_driver_for_node(lake):
    folder = other_clients.node_packages()
    printed = run(lake, "node", ["node", "--input-type=module", "-e", DRIVER], cwd=folder)
    assert printed.splitlines()[-1] == lake.client_id


APPKIT = """
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";
const path = process.cwd() + "/node_modules/@databricks/appkit/dist/connectors/lakebase/pool-manager.js";
const { createLakebasePoolManager } = await import(pathToFileURL(path));
const { WorkspaceClient } = createRequire(path)("@databricks/sdk-experimental");
const manager = createLakebasePoolManager({ max: 3, allowExitOnIdle: true });
const client = new WorkspaceClient({ host: process.env.DATABRICKS_HOST, token: process.env.TOKEN, authType: "pat" });
const pool = manager.getPool(process.env.NAME, { workspaceClient: client, user: process.env.NAME }, "fingerprint");
const found = await Promise.all([1, 2, 3, 4, 5].map(() => pool.query("select current_user as name")));
console.log(JSON.stringify(found.map((each) => each.rows[0].name)));
await manager.closeAll?.();
process.exit(0);
"""


def test_appkits_pool_of_a_user(lake):
    folder = other_clients.node_packages()
    forwarded = lake.forwarded_token(USER)  # as AppKit gets it
    before = lake.stats().user(USER).total
    command = ["node", "--input-type=module", "-e", APPKIT]
    printed = run(lake, "node", command, cwd=folder, TOKEN=forwarded, NAME=USER)
    assert json.loads(printed.splitlines()[-1]) == [USER] * 5
    assert 1 <= lake.stats().user(USER).total - before <= 3


AI_BRIDGE = """
import asyncio, os
from databricks_ai_bridge.lakebase import AsyncLakebasePool, LakebasePool
pool = LakebasePool(autoscaling_endpoint=os.environ["LAKEBASE_ENDPOINT"])
with pool.connection() as connection:
    print(connection.execute("select current_user as name").fetchone()["name"])
pool.close()

async def main():
    pool = AsyncLakebasePool(project="local", branch="production")
    await pool.open()
    async with pool.connection() as connection:
        print((await (await connection.execute("select current_user as name")).fetchone())["name"])
    await pool.close()

asyncio.run(main())
"""


def test_pools_of_databricks_ai_bridge(lake):
    folder = other_clients.ai_bridge()
    if lake.port != 5432:
        pytest.skip(reason="port 5432 is taken, and databricks-ai-bridge knows no other")
    printed = run(lake, "python", [sys.executable, "-c", AI_BRIDGE], PYTHONPATH=str(folder))
    assert printed.splitlines() == [lake.client_id] * 2


def test_sqlalchemy_with_libpqs_environment(lake, monkeypatch):
    for name, value in lake.environment("psql", USER).items():
        monkeypatch.setenv(name, value)
    for name in ("PGSERVICE", "PGOPTIONS"):
        monkeypatch.delenv(name, raising=False)
    engine = sqlalchemy.create_engine("postgresql+psycopg://")
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("select current_user")) == USER
    engine.dispose()


JAVA = """
import java.sql.*;

class Client {
    public static void main(String[] arguments) throws SQLException {
        String url = System.getenv("JDBC_DATABASE_URL"), user = System.getenv("JDBC_DATABASE_USERNAME");
        try (Connection connection = DriverManager.getConnection(url, user, System.getenv("JDBC_DATABASE_PASSWORD"));
                PreparedStatement statement = connection.prepareStatement("select current_user, ?::int + 1")) {
            for (int i = 0; i < 10; i++) { // after five, the driver prepares it on the server
                statement.setInt(1, i);
                try (ResultSet found = statement.executeQuery()) {
                    found.next();
                    System.out.println(found.getString(1) + " " + found.getInt(2));
                }
            }
        }
    }
}
"""


def test_jdbc(lake, tmp_path):
    program = other_clients.java()
    (tmp_path / "Client.java").write_text(JAVA)
    command = [program, "-cp", str(other_clients.POSTGRESQL_JAR), str(tmp_path / "Client.java")]
    assert run(lake, "jdbc", command, user=USER).splitlines() == [f"{USER} {i + 1}" for i in range(10)]
