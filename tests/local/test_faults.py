"""Faults in general: which one strikes, how often, and for whom."""

import math

import pytest

from lakebase.local import LocalLakebaseError
from tests.local.clients import connect, connection_settings, refusal


def test_a_fault_ends_after_its_count(lake, user, settings):
    fault = lake.refuse("57P03", count=2)
    refusal(settings)
    refusal(settings)
    assert connect(settings) == user
    assert fault.hits == 2


def test_a_fault_of_one_user_leaves_the_others_alone(lake, user, settings):
    with lake.too_many_connections(user=user):
        assert "too many clients" in refusal(settings)
        assert connect(connection_settings(lake, lake.admin_user)) == lake.admin_user


def test_of_two_faults_the_one_made_last_strikes(lake, settings):
    with lake.refuse("57P03"), lake.refuse("53300", count=1):
        assert "too many clients" in refusal(settings)
        assert "starting up" in refusal(settings)


def test_waiting_for_a_hit_is_an_error_when_none_comes(lake):
    with lake.refuse("57P03") as fault, pytest.raises(LocalLakebaseError, match="57P03"):
        fault.wait(timeout=0.05)


def test_impossible_times_counts_and_states_are_refused(lake):
    for arrange, words in (
        (lambda: lake.suspend(math.nan), "wake_after=nan: expected seconds, 0 or more"),
        (lambda: lake.suspend(0.1, while_waking="x"), "while_waking='x'"),
        (lambda: lake.delay(math.nan), "seconds=nan"),
        (lambda: lake.hang(count=1.5), "count=1.5: expected 1 or more, a whole number"),
        (lambda: lake.fail_workspace("503"), "status='503': expected 400 to 599"),
        (lambda: lake.fail_workspace(503, retry_after=-1), "retry_after=-1"),
    ):
        with pytest.raises(ValueError, match=words):
            arrange()
    assert lake.state == "ACTIVE"
