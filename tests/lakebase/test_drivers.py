"""Settings for what connects by itself: they work, stay fresh, and show no password."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import psycopg
import psycopg_pool
import pytest

from lakebase import ConfigurationError, LakebasePoolConfig
from lakebase.drivers import LivePassword, lakebase_orm_config, lakebase_pg_config

WHO = "SELECT current_user"


def test_psycopg_connects_with_a_credential_of_the_moment(lakebase_user) -> None:
    settings = lakebase_pg_config(lakebase_user.config())
    for _ in range(2):
        with psycopg.connect(**settings) as connection:
            assert connection.execute(WHO).fetchone() == (lakebase_user.name,)
    assert lakebase_user.lake.stats().user(lakebase_user.name).minted == 1


def test_two_calls_for_one_identity_share_the_credential(lakebase_user) -> None:
    first = lakebase_pg_config(lakebase_user.config())["password"]
    second = lakebase_pg_config(lakebase_user.config(), application_name="other")["password"]
    assert str(first) == second()
    assert lakebase_user.lake.stats().user(lakebase_user.name).minted == 1


def test_psycopgs_own_pool_takes_the_settings(lakebase_user) -> None:
    settings = lakebase_pg_config(lakebase_user.config())
    with psycopg_pool.ConnectionPool(kwargs=settings, min_size=1, max_size=2) as pool, pool.connection() as connection:
        assert connection.execute(WHO).fetchone() == (lakebase_user.name,)


def test_sqlalchemy_connects_with_a_live_password(lakebase_user) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    parts = lakebase_orm_config(lakebase_user.config())
    password = parts.pop("password")
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create(**parts), connect_args={"password": password})
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text(WHO)) == lakebase_user.name
    engine.dispose()


DJANGO = """
import django
from django.conf import settings
from lakebase.drivers import lakebase_orm_config

parts = lakebase_orm_config()
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts["database"],
            "USER": parts["username"],
            "PASSWORD": parts["password"],
            "HOST": parts["host"],
            "PORT": parts["port"],
            "OPTIONS": parts["query"],
        }
    }
)
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT current_user")
    print(cursor.fetchone()[0])
"""


def test_django_connects_with_a_live_password_from_the_apps_environment(lakebase_local) -> None:
    pytest.importorskip("django")
    environment = {**os.environ, **lakebase_local.environment()}
    found = subprocess.run([sys.executable, "-c", DJANGO], env=environment, capture_output=True, text=True, timeout=60)
    assert (found.stdout.strip(), found.stderr) == (lakebase_local.client_id, "")


def test_a_native_password_is_a_plain_string() -> None:
    config = LakebasePoolConfig(host="h", database="d", user="u", password="fixed")
    assert lakebase_pg_config(config)["password"] == "fixed"
    orm = lakebase_orm_config(config, drivername="postgresql+asyncpg")
    assert (orm["username"], orm["password"], orm["database"], orm["host"], orm["port"]) == (
        "u",
        "fixed",
        "d",
        "h",
        5432,
    )
    assert orm["drivername"] == "postgresql+asyncpg"
    assert orm["query"]["sslmode"] == "require"
    assert all(isinstance(value, str) for value in orm["query"].values())


def test_what_is_missing_is_told_at_once() -> None:
    for build in (lakebase_pg_config, lakebase_orm_config):
        with pytest.raises(ConfigurationError, match="host="):
            build({"database": "d", "user": "u", "password": "p"})


def test_a_password_is_asked_for_each_time_and_never_shown() -> None:
    passwords = iter(["one-secret", "two-secret", "three-secret"])
    config = LakebasePoolConfig(host="h", database="d", user="u", password=lambda: next(passwords))
    settings = lakebase_pg_config(config)
    live = settings["password"]
    assert isinstance(live, LivePassword)
    assert "secret" not in f"{settings} {settings!r} {live!r} {live} {live:>10}"
    assert copy.deepcopy(settings)["password"] is live
    assert (str(live), live()) == ("one-secret", "two-secret")
    assert "three-secret" in psycopg.conninfo.make_conninfo(**settings)
