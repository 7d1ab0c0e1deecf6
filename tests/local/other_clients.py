"""
Clients of Lakebase that are not ours: where they are, and why they are not.

    python -m tests.local.other_clients

fetches those that no test installs by itself into the user's cache: Databricks' JavaScript driver and AppKit with npm,
and databricks-ai-bridge with pip, without what it depends on: its pools need none of the hundreds of megabytes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.benchmarks import npm

AI_BRIDGE = "0.22.0"
POSTGRESQL_JAR = Path("/usr/share/java/postgresql.jar")
FETCH = "`python -m tests.local.other_clients` fetches it"


def node_packages():
    """The folder in which Node finds Databricks' packages."""
    if shutil.which("node") is None:
        pytest.skip(reason="there is no Node on the PATH")
    if not npm.cache_folder().exists():
        pytest.skip(reason=f"Databricks' JavaScript packages are not here: {FETCH}")
    return npm.cache_folder()


def ai_bridge_folder():
    """The folder from which Python imports `databricks_ai_bridge`, whether it is there or not."""
    return npm.cache_folder().with_name(f"databricks-ai-bridge-{AI_BRIDGE}")


def ai_bridge():
    """The folder from which Python imports `databricks_ai_bridge`."""
    if not ai_bridge_folder().exists():
        pytest.skip(reason=f"databricks-ai-bridge is not here: {FETCH}")
    return ai_bridge_folder()


def java():
    """The Java that runs a source file, with the driver that Debian's libpostgresql-jdbc-java has."""
    program = shutil.which("java")
    if program is None:
        pytest.skip(reason="there is no Java on the PATH")
    modules = subprocess.run([program, "--list-modules"], capture_output=True, text=True).stdout
    if "jdk.compiler" not in modules:
        pytest.skip(reason="this Java has no compiler: it is a JRE, not a JDK")
    if not POSTGRESQL_JAR.exists():
        pytest.skip(reason=f"there is no {POSTGRESQL_JAR}: on Debian it is in libpostgresql-jdbc-java")
    return program


def psql():
    """The psql of the system; the embedded one has no TLS."""
    program = shutil.which("psql")
    if program is None:
        pytest.skip(reason="there is no psql on the PATH")
    return program


def fetch_ai_bridge():
    """Put databricks-ai-bridge into its folder, which appears when it is complete."""
    folder = ai_bridge_folder()
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="installing-", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        fresh = Path(temporary, "packages")
        what = ["--no-deps", "--quiet", "--target", str(fresh), f"databricks-ai-bridge=={AI_BRIDGE}"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *what], check=True, env={**os.environ, "PYTHONPATH": ""}
        )
        fresh.rename(folder)


if __name__ == "__main__":
    fetch_ai_bridge()
    npm.install(print)
