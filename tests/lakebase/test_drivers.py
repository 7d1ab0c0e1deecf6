"""Settings for what connects by itself: they work, stay fresh, and show no password."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import psycopg
import psycopg_pool
import pytest

from lakebase import ConfigurationError, LakebasePoolConfig
from lakebase.drivers import LivePassword, lakebase_orm_config, lakebase_pg_config
from lakebase.local import LocalLakebase

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
    assert orm["query"] == {"ssl": "require"}
    libpq = lakebase_orm_config(config)["query"]
    assert libpq["sslmode"] == "require"
    assert all(isinstance(value, str) for value in libpq.values())


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


async def test_asyncpgs_pool_takes_the_settings(lakebase_user) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    settings = lakebase_pg_config(lakebase_user.config(application_name="of asyncpg"), driver="asyncpg")
    async with asyncpg.create_pool(**settings, min_size=1, max_size=2) as pool:
        assert await pool.fetchval(WHO) == lakebase_user.name
        assert await pool.fetchval("SELECT current_setting('application_name')") == "of asyncpg"
    assert lakebase_user.lake.stats().user(lakebase_user.name).minted == 1


def test_psycopg2_takes_the_settings(lakebase_user) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    with psycopg2.connect(**lakebase_pg_config(lakebase_user.config(), driver="psycopg2")) as connection:
        cursor = connection.cursor()
        cursor.execute(WHO)
        assert cursor.fetchone() == (lakebase_user.name,)
    connection.close()


@pytest.mark.parametrize("drivername", ["postgresql+psycopg2", "postgresql+psycopg"])
def test_sqlalchemys_dialects_take_the_parts_of_a_url(lakebase_user, drivername) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip(drivername.partition("+")[2])
    parts = lakebase_orm_config(lakebase_user.config(), drivername=drivername)
    password = parts.pop("password")
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create(**parts), connect_args={"password": password})
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text(WHO)) == lakebase_user.name
    engine.dispose()


@pytest.mark.parametrize("way", ["connect_args", "a URL"])
async def test_so_does_its_asyncpg_dialect(lakebase_user, way) -> None:
    pytest.importorskip("asyncpg")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.ext.asyncio import create_async_engine

    if way == "a URL":
        config = lakebase_user.config(ssl_mode="require", ssl_root_cert=None)
        parts = lakebase_orm_config(config, drivername="postgresql+asyncpg")
        parts["password"] = str(parts["password"])
        engine = create_async_engine(sqlalchemy.URL.create(**parts))
    else:
        settings = lakebase_pg_config(lakebase_user.config(), driver="asyncpg")
        engine = create_async_engine("postgresql+asyncpg://", connect_args=settings)
    async with engine.connect() as connection:
        assert await connection.scalar(sqlalchemy.text(WHO)) == lakebase_user.name
    await engine.dispose()


def test_asyncpgs_settings_are_its_own() -> None:
    config = LakebasePoolConfig(
        host="h",
        database="d",
        user="u",
        password="p",
        libpq_params={"options": "-c work_mem=4MB -cjit=off"},
    )
    settings = lakebase_pg_config(config, driver="asyncpg", connect_timeout=7)
    assert settings == {
        "host": "h",
        "port": 5432,
        "user": "u",
        "database": "d",
        "password": "p",
        "timeout": 7,
        "ssl": "require",
        "server_settings": {"work_mem": "4MB", "jit": "off"},
    }
    reading = lakebase_pg_config(config, driver="asyncpg", read_only=True, libpq_params={})
    assert reading["server_settings"] == {"default_transaction_read_only": "on"}


def test_what_asyncpg_cannot_be_told_is_refused() -> None:
    config = LakebasePoolConfig(host="h", database="d", user="u", password="p")
    with pytest.raises(ConfigurationError, match="asyncpg has no setting for keepalives_idle"):
        lakebase_pg_config(config, driver="asyncpg", libpq_params={"keepalives_idle": 30})
    with pytest.raises(ConfigurationError, match="options="):
        lakebase_pg_config(config, driver="asyncpg", libpq_params={"options": "-e"})
    for settings in ({"ssl_mode": "verify-full", "ssl_root_cert": "system"}, {"read_only": True}):
        with pytest.raises(ConfigurationError, match="connect_args="):
            lakebase_orm_config(config, drivername="postgresql+asyncpg", **settings)
    with pytest.raises(ConfigurationError, match="driver='mysql': expected one of psycopg, psycopg2, asyncpg"):
        lakebase_pg_config(config, driver="mysql")


def test_a_live_password_can_be_pickled(lakebase_user) -> None:
    config = lakebase_user.config()
    password = lakebase_pg_config(config)["password"]
    code = (
        "import pickle, sys, psycopg\n"
        "settings = pickle.loads(sys.stdin.buffer.read())\n"
        "assert repr(settings['password']) == '***'\n"
        "with psycopg.connect(**settings) as c: print(c.execute('SELECT current_user').fetchone()[0])\n"
    )
    pickled = pickle.dumps({**config.connect_kwargs(), "password": password})
    found = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, timeout=60)
    assert (found.stdout.decode().strip(), found.stderr.decode()) == (lakebase_user.name, "")
    assert str(pickle.loads(pickle.dumps(password))) == str(password)


@pytest.mark.parametrize("build", [lakebase_pg_config, lakebase_orm_config])
def test_a_read_only_host_is_looked_up(build) -> None:
    with LocalLakebase(read_only=True) as lake:
        config = lake.config(user=lake.admin_user).merged({"read_only": True})
        assert config.server_host != lake.read_only_host
        assert build(config)["host"] == lake.read_only_host
