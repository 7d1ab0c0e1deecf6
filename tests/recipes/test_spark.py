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


def test_the_job_writes_each_payment_once(spark_environment, documented_environment, redis):
    redis.clear("payments")
    conf = [part for name, value in SPARK.items() for part in ("--conf", f"{name}={value}")]
    submit = str(Path(sys.executable).with_name("spark-submit"))
    command = [submit, "--master", "local[2]", *conf, str(RECIPES / "spark_job.py")]
    environment = os.environ | {"REDIS_URL": redis.url}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=800)
    assert done.stdout == "1000 payments, 36500.00 EUR\n"
