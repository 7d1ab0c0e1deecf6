"""A real Ray cluster on this machine, started once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.leases.conftest import counter as counter
from tests.leases.conftest import start as start
from tests.platform.programs import ROOT

numbers = itertools.count(1)

# Each process of Ray takes seconds of processor time to start: here are only those that are needed, and with patience.
RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns
}
ATTEMPTS = 5  # Ray gives up if its processes are not there within 15 s


@pytest.fixture
def name() -> str:
    return f"budget-{next(numbers)}"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a cluster to which this process is connected."""
    ray = pytest.importorskip("ray", reason="Ray comes with the extra `ray`; `nox -s clusters` has it")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for variable, value in RAY.items():
            patch.setenv(variable, value)
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
