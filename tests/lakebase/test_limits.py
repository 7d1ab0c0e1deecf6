"""What the endpoint takes, and whether a budget fits."""

from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase import ConfigurationError, LakebasePoolConfig, create_lakebase_pool
from lakebase.limits import (
    _DOCUMENTED,
    ConnectionBudgetWarning,
    direct_connections,
    over_limit,
    pooler_server_connections,
    smallest_compute,
    warn_if_over_limit,
)


@pytest.mark.parametrize(("units", "connections"), _DOCUMENTED.items())
def test_the_rule_between_the_documented_sizes_agrees_with_all_of_them(
    units: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert direct_connections(units) == connections
    monkeypatch.setattr("lakebase.limits._DOCUMENTED", {})
    assert direct_connections(units) == connections


@given(st.floats(0.5, 112), st.floats(0.5, 112))
def test_a_larger_compute_never_takes_fewer(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert 104 <= direct_connections(small) <= direct_connections(large) <= 4000


@pytest.mark.parametrize("units", [0, 0.25, 113, -1, float("nan"), True, "1"])
def test_a_size_that_no_endpoint_has_is_refused(units: float) -> None:
    with pytest.raises(ConfigurationError, match="compute_units"):
        direct_connections(units)
    with pytest.raises(ConfigurationError, match="compute_units"):
        LakebasePoolConfig(compute_units=units)


def test_the_pooler_leaves_a_tenth() -> None:
    assert pooler_server_connections(1) == 188


@pytest.mark.parametrize(
    ("budget", "given", "fits"),
    [
        (209, {"compute_units": 1}, True),
        (210, {"compute_units": 1}, False),
        (52, {"compute_units": 1, "replicas": 4}, True),
        (53, {"compute_units": 1, "replicas": 4}, False),
        (1000, {"provisioned": True}, True),
        (501, {"provisioned": True, "replicas": 2}, False),
        (10_000, {"pooled": True, "compute_units": 1}, True),
        (10_001, {"pooled": True}, False),
        (1_000_000, {}, True),
    ],
)
def test_a_budget_is_weighed_against_the_limit_that_applies(budget: int, given: dict, fits: bool) -> None:
    reason = over_limit(budget, **given)
    assert (reason is None) is fits
    if reason is not None:
        assert "max_total=" in reason
        assert "53300" in reason


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"budget": "100"}, "budget='100': expected a whole number, 0 or more"),
        ({"budget": None}, "budget=None"),
        ({"budget": 2.5}, "budget=2.5"),
        ({"budget": float("nan")}, "budget=nan"),
        ({"replicas": 0}, "replicas=0: expected a whole number, 1 or more"),
        ({"replicas": "4"}, "replicas='4'"),
        ({"replicas": True}, "replicas=True"),
        ({"compute_units": [1]}, "compute_units"),
        ({"pooled": "no"}, "pooled='no': expected True or False"),
        ({"provisioned": 1}, "provisioned=1"),
    ],
)
def test_a_question_that_makes_no_sense_names_the_argument(wrong: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        over_limit(**{"budget": 100, **wrong})
    with pytest.raises(ConfigurationError, match="connections='5'"):
        smallest_compute("5")  # type: ignore[arg-type]


def test_no_limit_at_all_is_more_than_there_is() -> None:
    assert (over_limit(math.inf, compute_units=1) or "").startswith("Any number of connections, more than the 209")


def test_the_advice_names_a_budget_that_fits() -> None:
    reason = over_limit(100, compute_units=1, replicas=4)
    assert reason is not None
    assert "4 processes of 100 connections are 400" in reason
    assert "run fewer processes" in reason
    assert "share one limit below 209: budget=pooling.SharedBudget" in reason
    assert " to 52," in reason
    assert over_limit(52, compute_units=1, replicas=4) is None
    alone = over_limit(300, compute_units=1)
    assert alone is not None
    assert alone.startswith("300 connections, more than the 209")
    assert alone.endswith("Lower max_total= (or max_size=) to 209, or enlarge the compute.")


def test_a_configuration_over_its_limit_warns_where_it_was_made() -> None:
    config = LakebasePoolConfig(max_size=150, compute_units=1, replicas=2)
    with pytest.warns(ConnectionBudgetWarning, match="300") as caught:
        warn_if_over_limit(config)
    assert caught[0].filename == __file__
    with pytest.warns(ConnectionBudgetWarning, match="1000"):
        warn_if_over_limit(config, budget=500)


def test_a_pool_over_its_limit_warns_where_it_is_made() -> None:
    with pytest.warns(ConnectionBudgetWarning, match="to 104,") as caught:
        pool = create_lakebase_pool(
            host="h", database="d", user="u", password="p", max_size=150, compute_units=1, replicas=2, open=False
        )
    pool.close()
    assert caught[0].filename == __file__


def test_waiting_longer_than_the_pooler_does_warns() -> None:
    with pytest.warns(ConnectionBudgetWarning, match="120 s"):
        warn_if_over_limit(LakebasePoolConfig(pooled=True, password="p", timeout=121.0))


def test_a_configuration_that_fits_or_says_nothing_of_size_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_over_limit(LakebasePoolConfig(max_size=1000))
        warn_if_over_limit(LakebasePoolConfig(max_size=100, compute_units=1, replicas=2))
        warn_if_over_limit(LakebasePoolConfig(pooled=True, password="p", timeout=120.0))
