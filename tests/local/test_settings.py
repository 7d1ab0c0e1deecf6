"""Which settings are refused, and how the size of the compute decides the connections."""

import math

import psycopg
import pytest

from lakebase.local import LocalLakebase
from tests.local.clients import connection_settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70000}, "port=70000"),
        ({"port": -1}, "port=-1"),
        ({"max_connections": 0}, "max_connections=0"),
        ({"token_lifetime": 0}, "token_lifetime=0"),
        ({"suspend_timeout": 0}, "suspend_timeout=0"),
        ({"compute_units": 0.25}, "compute_units=0.25"),
        ({"compute_units": "1"}, "compute_units='1': expected"),
        ({"port": "5432"}, "port='5432': expected 0 to 65535, a whole number"),
        ({"workspace_port": True}, "workspace_port=True: expected 0 to 65535"),
        ({"max_connections": 2.5}, r"max_connections=2\.5: expected 1 or more, a whole number"),
        ({"token_lifetime": math.nan}, "token_lifetime=nan: expected seconds, more than 0"),
        ({"token_lifetime": math.inf}, "token_lifetime=inf: expected seconds, more than 0 and at most"),
        ({"token_lifetime": "60"}, "token_lifetime='60'"),
        ({"suspend_timeout": math.nan}, "suspend_timeout=nan: .*, or None for never"),
        ({"wake_after": -1}, "wake_after=-1: expected seconds, 0 or more"),
        ({"wake_after": math.nan}, "wake_after=nan"),
        ({"while_waking": "x"}, "while_waking='x': expected '57P03', 'refused' or 'wait'"),
        ({"read_only": "no"}, "read_only='no': expected True or False"),
        ({"pooler": None}, "pooler=None"),
        ({"data_dir": ""}, "data_dir=''"),
    ],
)
def test_bad_settings_are_refused_at_construction(settings, words):
    with pytest.raises(ValueError, match=words):
        LocalLakebase(**settings)


def test_a_small_compute_takes_no_more_than_its_limit():
    with LocalLakebase(pooler="off", compute_units=0.5) as lake:
        with psycopg.connect(**connection_settings(lake, lake.admin_user)) as connection:
            names = ("max_connections", "superuser_reserved_connections")
            most, kept = (int(connection.execute(f"show {name}").fetchone()[0]) for name in names)
            assert most - kept == 104 + 1  # the gateway's own
        endpoint = lake.workspace_client().postgres.get_endpoint(lake.endpoint)
        assert endpoint.status.autoscaling_limit_max_cu == 0.5
