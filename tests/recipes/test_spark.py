"""The recipe for Spark, as the service principal of the environment, which executors have, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters.conftest import SPARK
from tests.clusters.conftest import spark_environment as spark_environment
from tests.leases.conftest import redis as redis
from tests.recipes.conftest import RECIPES

pytestmark = pytest.mark.timeout(900)


def submit(recipe: str, **environment: str) -> str:
    """Run a recipe in two tasks at a time; what it writes."""
    conf = [part for name, value in SPARK.items() for part in ("--conf", f"{name}={value}")]
    program = str(Path(sys.executable).with_name("spark-submit"))
    done = subprocess.run(
        [program, "--master", "local[2]", *conf, str(RECIPES / recipe)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=800,
    )
    return done.stdout


def test_the_job_writes_each_payment_once(spark_environment, documented_environment, redis):
    redis.clear("payments")
    assert submit("spark_job.py", REDIS_URL=redis.url) == "1000 payments, 36500.00 EUR\n"


def test_the_cells_of_the_notebook_write_each_row(spark_environment, documented_environment):
    assert submit("spark_notebook.py") == "(10000,)\n"
