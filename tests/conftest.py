"""What every test shares: the local Lakebase's fixtures and Hypothesis' profiles."""

import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PLUGIN = "lakebase.local.pytest_plugin"
ENTRY_POINT = "lakebase_local"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """
    Load the local Lakebase's plugin where the distribution is not installed.

    An installed distribution, editable ones too, brings it through its entry point; loading it again would be an error.
    Here, and not in `pytest_configure`, because the plugin has options of its own.
    """
    missing = importlib.util.find_spec(PLUGIN.rpartition(".")[0]) is None or importlib.util.find_spec(PLUGIN) is None
    if not missing and not pluginmanager.has_plugin(ENTRY_POINT) and not pluginmanager.is_blocked(ENTRY_POINT):
        pluginmanager.import_plugin(PLUGIN)


# A shell that starts the tests in the background has them ignore Ctrl-C, and with them every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: how long an example takes is the machine's matter. In CI the examples are the same in every run, so that
# a red run can be run again; on a developer's machine each run looks at new ones.
settings.register_profile("default", deadline=None, max_examples=50, stateful_step_count=40)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=400,
    stateful_step_count=60,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "default"))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty directory whose path leaves room for the name of a socket in it; that of `tmp_path` may not."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        yield Path(path)
