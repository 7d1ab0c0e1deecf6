"""A real Ray cluster and a real Spark cluster on this machine, each started once."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.conftest import enter_environment
from tests.leases.conftest import counter as counter
from tests.leases.conftest import redis as redis
from tests.leases.conftest import start as start
from tests.platform.programs import ROOT
from tests.recipes.conftest import password_variables

numbers = itertools.count(1)

# Each process of Ray takes seconds of processor time to start: here are only those that are needed, and with patience.
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns
}
APPLICATION = "ray"  # the name of the sessions of its processes
# Two executors, each a Java process that runs two tasks at a time. No job begins before both are there, which takes
# minutes on a busy machine, as may their answers.
SPARK_MASTER = "local-cluster[2,2,1024]"
SPARK = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "300s",
    "spark.network.timeout": "600s",
}
ATTEMPTS = 5  # Ray gives up if its processes are not there within 15 s


@pytest.fixture
def name() -> str:
    return f"budget-{next(numbers)}"


@pytest.fixture(scope="session")
def ray_cluster(lakebase_local, tmp_path_factory) -> Iterator[str]:
    """The address of a cluster to which this process is connected, in the environment of an app."""
    ray = pytest.importorskip("ray", reason="Ray comes with the extra `ray`; `nox -s clusters` has it")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        role = password_variables(lakebase_local, APPLICATION, tmp_path_factory.mktemp("role"))
        enter_environment(patch, RAY | lakebase_local.environment() | role | {"PGAPPNAME": APPLICATION})
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        node = {"num_cpus": 4, "include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
        for attempt in range(ATTEMPTS):
            try:
                cluster = Cluster(initialize_head=True, head_node_args=node)
                break
            except Exception:  # it has no class of its own
                if attempt == ATTEMPTS - 1:
                    raise
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


def find_java() -> str | None:
    """What JAVA_HOME has to be for a Java of this machine, or for the one that `.ci/get-java` fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    fetched = cache / "lakebase-pooling" / "java"
    program = shutil.which(str(fetched / "bin" / "java")) or shutil.which("java")
    return os.environ.get("JAVA_HOME") or (program and str(Path(program).resolve().parents[1]))


@pytest.fixture(scope="session")
def spark_environment() -> Iterator[None]:
    """What a program needs to start Spark: Java, this Python on the executors, and an address of this machine."""
    pytest.importorskip("pyspark", reason="PySpark comes with the extra `spark`; `nox -s spark` has it")
    java = find_java()
    if java is None:
        pytest.skip("there is no Java on this machine; .ci/get-java fetches one on Debian")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", java)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def spark(spark_environment, tmp_path_factory) -> Iterator[Any]:
    """A session on a cluster of two executors with two tasks at a time."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(SPARK_MASTER).appName("tests")
    for name, value in SPARK.items():
        builder = builder.config(name, value)
    session = builder.config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse"))).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
