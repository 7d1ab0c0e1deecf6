"""Django's backend: no more than an endpoint, and nothing before the first connection."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("django")

SET_UP = """
import django, traceback
from django.conf import settings
from django.db import connections

databases = {"default": {"ENGINE": "lakebase.django"}, **eval(%r)}
settings.configure(DATABASES=databases)
django.setup()

def one(alias, statement):
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]

def shown(error):
    texts = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_name != "<module>":
                texts.append(repr(frame.f_locals))
        texts.append(repr(error) + repr(vars(error)))
        error = error.__cause__ or error.__context__
    return "".join(texts)

from lakebase import endpoints
assert not endpoints._hosts._answers, "the workspace was asked before the first connection"
"""


def run(lake: Any, databases: dict[str, Any], code: str) -> list[str]:
    """What a process with these databases prints, in the environment of an app that knows its endpoint only."""
    given = {name: text for name, text in lake.environment().items() if name not in ("PGHOST", "PGDATABASE", "PGUSER")}
    program = SET_UP % repr(databases) + code
    environ = {**os.environ, **given, "LAKEBASE_WARM_UP": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


def test_an_endpoint_is_enough_and_settings_work(lakebase_local) -> None:
    lakebase_local.add_password_role("djangos", "native")
    databases = {
        "settled": {"ENGINE": "lakebase.django", "OPTIONS": {"schema": "shop", "options": "-c work_mem=2MB"}},
        "native": {"ENGINE": "lakebase.django", "USER": "djangos", "PASSWORD": "native", "HOST": lakebase_local.host,
                   "PORT": str(lakebase_local.port), "NAME": lakebase_local.database,
                   "OPTIONS": {"sslmode": "verify-ca", "isolation_level": 4}},
    }  # fmt: skip
    code = """
print(one("default", "SELECT current_user"))
print(one("settled", "SHOW search_path").replace(" ", ""), one("settled", "SHOW work_mem"))
from django.db import transaction
with transaction.atomic(using="native"):
    print(one("native", "SELECT current_user"), one("native", "SHOW transaction_isolation"))
print(connections["native"].get_connection_params()["sslmode"], connections["default"].settings_dict["NAME"] == "")
with transaction.atomic():
    one("default", "SELECT 1")
print(len(endpoints._hosts._answers))
"""
    assert run(lakebase_local, databases, code) == [
        lakebase_local.client_id,
        '"shop",public',
        "2MB",
        "djangos",
        "serializable",
        "verify-ca",
        "True",
        "1",
    ]


def test_a_failed_login_shows_no_password(lakebase_local) -> None:
    lakebase_local.add_password_role("djangos", "native")
    where = {"HOST": lakebase_local.host, "PORT": lakebase_local.port, "NAME": lakebase_local.database}
    databases = {
        "native": {"ENGINE": "lakebase.django", **where, "USER": "djangos", "PASSWORD": "s3cret-in-a-frame"},
        "misspelt": {"ENGINE": "lakebase.django", "OPTIONS": {"shema": "shop"}},
    }
    code = """
from django.db import OperationalError
from lakebase.drivers import LivePassword
minted = str(connections["default"].get_connection_params()["password"])
connections["default"].settings_dict["USER"] = "nobody"
for alias, secret in (("native", "s3cret-in-a-frame"), ("default", minted)):
    try:
        one(alias, "SELECT 1")
    except OperationalError as error:
        text = shown(error)
        print(len(text) > 500, secret in text, "authentication" in str(error))
try:
    one("misspelt", "SELECT 1")
except Exception as error:
    print("shema" in str(error))
"""
    assert run(lakebase_local, databases, code) == ["True", "False", "True"] * 2 + ["True"]
