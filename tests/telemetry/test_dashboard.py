"""The dashboard and the alert rules ask for metrics and labels that exist, and leave out none that matters."""

from __future__ import annotations

import json
import re

import pytest

from lakebase import LakebasePoolManager
from pooling.telemetry.prometheus import exported_labels, exported_names
from tests.architecture.source import ROOT

FOLDER = ROOT / "docs" / "telemetry"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = (FOLDER / "prometheus-rules.yml").read_text(encoding="utf-8")
METRIC = re.compile(r"\b(?:db_client|pooling|lakebase)_\w+")

assert LakebasePoolManager  # its modules describe their metrics


def panel_expressions():
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def rule_expressions():
    """The expressions of the rules, also those over several lines."""
    found = re.findall(r"^ +expr: (?:>-\n)?(.*?)\n +(?:for|labels):", RULES, re.DOTALL | re.MULTILINE)
    assert len(found) == RULES.count("- alert:")
    return found


def metrics_in(expression):
    """The names of metrics and labels, without what Prometheus adds to a histogram."""
    return {
        re.sub(r"_(bucket|sum|count)$", "", name) if "_seconds_" in name else name
        for name in METRIC.findall(expression)
    }


@pytest.mark.parametrize("expression", [*panel_expressions(), *rule_expressions()])
def test_an_expression_names_only_what_is_exported(expression):
    found = metrics_in(expression)
    assert found
    assert found <= exported_names() | exported_labels(), found - exported_names() - exported_labels()


def test_the_dashboard_shows_each_metric_of_connections_and_of_lakebase():
    shown = set().union(*map(metrics_in, panel_expressions()))
    wanted = {name for name in exported_names() if name.startswith(("db_client", "lakebase", "pooling_budget"))}
    # What idle may be follows from the maximum; the durations of logins and mints are in the create time.
    told_elsewhere = {"db_client_connection_idle_max", "db_client_connection_idle_min"}
    told_elsewhere |= {name for name in wanted if name.endswith("_duration_seconds")}
    assert wanted - shown - told_elsewhere == set()


def test_each_panel_has_a_place_of_its_own_and_the_variables_that_it_uses():
    places = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & places, panel["title"]
        places |= cells
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} == variables


def test_each_alert_says_what_is_wrong_and_what_to_try():
    for alert in RULES.split("- alert:")[1:]:
        assert all(f"{part}:" in alert for part in ("severity", "summary", "description")), alert
