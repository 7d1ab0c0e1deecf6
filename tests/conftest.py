"""What all tests share: the local Lakebase's fixtures, Hypothesis' profiles, and which tests are marked `quick`."""

import gc
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent

# While the tests are imported, and nothing of that goes away, there is nothing to collect.
gc.disable()

# The recipes run where their frameworks are, by `nox -s recipes`; one that is named on the command line runs anywhere.
collect_ignore = [] if importlib.util.find_spec("gradio") else ["recipes"]

# The tests of `-m quick`: folders, files and tests below this one, some of each area, in less than a minute together.
QUICK = (
    "architecture/test_habits.py",
    "architecture/test_layers.py",
    "architecture/test_private_names.py",
    "architecture/test_public_names.py",
    "context",
    "contract/test_errors.py",
    "contract/test_factories.py",
    "contract/test_options.py",
    "contract/test_stopping.py",
    "core/test_alarms.py",
    "core/test_hand_over.py",
    "core/test_opening.py",
    "core/test_state_machine.py",
    "core/test_time.py",
    "demo/test_app.py::test_users_at_once_see_their_own_rows_and_the_owner_sees_all",
    "di",
    "docs/test_commands.py",
    "docs/test_state_diagram.py",
    "docs/test_tables.py",
    "dropin/test_callbacks.py",
    "examples",
    "keyed/test_fairness.py",
    "keyed/test_spent_budget.py",
    "lakebase/test_config.py",
    "lakebase/test_credentials.py",
    "lakebase/test_identity.py",
    "leases/test_planted_bugs.py",
    "live/test_manager_routing.py",
    "local/test_faults.py::test_a_fault_ends_after_its_count",
    "operations/test_every_await.py",
    "platform/test_loops.py",
    "simulation/test_simulate.py",
    "telemetry/test_snapshot.py",
    "web/test_asgi.py",
)

PLUGIN = "lakebase.local.pytest_plugin"
ENTRY_POINT = "lakebase_local"
TEMPLATES = "LAKEBASE_LOCAL_TEMPLATES"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """
    Load the local Lakebase's plugin where the distribution is not installed.

    An installed distribution, editable ones too, brings it through its entry point; loading it again would be an error.
    Here, and not in `pytest_configure`, because the plugin adds options.
    """
    missing = importlib.util.find_spec(PLUGIN.rpartition(".")[0]) is None or importlib.util.find_spec(PLUGIN) is None
    if not missing and not pluginmanager.has_plugin(ENTRY_POINT) and not pluginmanager.is_blocked(ENTRY_POINT):
        pluginmanager.import_plugin(PLUGIN)


def pytest_configure(config: pytest.Config) -> None:
    """Have all processes of this run, xdist's workers too, copy one data directory instead of running `initdb`."""
    if not hasattr(config, "workerinput") and TEMPLATES not in os.environ:
        directory = tempfile.mkdtemp(prefix="lakebase-templates-")
        os.environ[TEMPLATES] = directory
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of the quick subset."""
    if item.path.is_relative_to(HERE):
        place = f"{item.path.relative_to(HERE).as_posix()}::{item.name}"
        if any(place == entry or place.startswith((f"{entry}/", f"{entry}::", f"{entry}[")) for entry in QUICK):
            item.add_marker(pytest.mark.quick)


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what was imported: a test that collects waits for its own objects alone."""
    _have_hypothesis_begin()  # it asks the collector, which in Python 3.14 does not find what is kept off it
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.collect()  # how often it goes through all objects depends on how many there were when it last did


@settings(max_examples=1, database=None)
@given(st.none())
def _have_hypothesis_begin(_: None) -> None:
    """Have Hypothesis make its random numbers, as it does for its first example."""


# A shell that starts the tests in the background has them ignore Ctrl-C, and `nohup` the end of the terminal; so would
# every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No deadline: how long an example takes is the machine's matter. In CI the examples are the same in every run, so that
# a red run can be run again; on a developer's machine each run looks at new ones. `nox -s deep` looks for longer.
settings.register_profile("default", deadline=None, max_examples=50, stateful_step_count=40)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=100,
    stateful_step_count=60,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", settings.get_profile("ci"), max_examples=2000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "default"))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty directory whose path leaves room for the name of a socket in it; that of `tmp_path` may not."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        yield Path(path)
