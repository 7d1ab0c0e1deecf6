"""The doctor finds what is wrong, once, and says what to do."""

from __future__ import annotations

import argparse
import io
import os

import pytest

from lakebase.doctor import Finding, Verdict, add_arguments, examine, main

CHECKS = ["configuration", "workspace", "host", "credential", "login", "TLS", "role", "limits"]


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "PG", "LAKEBASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nonexistent")


def findings(config, **arguments) -> dict[str, Finding]:
    found = list(examine(config, **arguments))
    return {finding.check: finding for finding in found}


def run(arguments: list[str]) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = io.StringIO()
    return main(parser.parse_args(arguments), out), out.getvalue()


def test_a_user_in_good_health_has_a_line_for_each_check(lakebase_user) -> None:
    found = findings(lakebase_user.config(), environ={})
    assert list(found) == CHECKS
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert lakebase_user.name in found["configuration"].found
    assert lakebase_user.name in found["workspace"].found
    assert "as the workspace says" in found["host"].found
    assert "60 min" in found["credential"].found
    assert "verify-full" in found["TLS"].found
    for finding in found.values():
        assert "\n" not in str(finding)


def test_the_app_is_examined_from_its_environment(lakebase_local, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lakebase_local.environment().items():
        monkeypatch.setenv(name, value)
    status, text = run([])
    assert status == 0, text
    assert len(text.splitlines()) == len(CHECKS)
    assert lakebase_local.client_secret not in text


def test_a_native_password_needs_no_workspace(lakebase_local, monkeypatch: pytest.MonkeyPatch) -> None:
    lakebase_local.add_password_role("doctors_role", "d0ct0r-pw")
    monkeypatch.setenv("PGPASSWORD", "d0ct0r-pw")
    where = ["--host", lakebase_local.host, "--port", str(lakebase_local.port), "--database", lakebase_local.database]
    who = ["--user", "doctors_role", "--native-password", "--ssl-root-cert", str(lakebase_local.ca_file)]
    status, text = run([*where, *who, "--ssl-mode", "verify-ca"])
    assert status == 0, text
    assert "not needed for a native password" in text
    monkeypatch.setenv("PGPASSWORD", "wr0ng-pw")
    status, text = run([*where, *who])
    assert status == 1
    assert "Check that user=" in text
    assert "wr0ng-pw" not in text


def test_what_depends_on_a_failure_is_skipped() -> None:
    found = findings({"database": "d", "user": "u"}, environ={})
    assert found["configuration"].verdict is Verdict.FAILED
    assert "PGHOST" in found["configuration"].found
    assert {finding.verdict for name, finding in found.items() if name != "configuration"} == {Verdict.SKIPPED}


def test_a_value_that_cannot_work_ends_the_examination() -> None:
    found = findings({"port": 0})
    assert list(found) == ["configuration"]
    assert "port=0" in found["configuration"].found


def test_a_revoked_user_fails_at_the_workspace(lakebase_user) -> None:
    config = lakebase_user.config()
    lakebase_user.lake.revoke(lakebase_user.name)
    found = findings(config, environ={})
    assert found["workspace"].verdict is Verdict.FAILED
    assert "DATABRICKS_HOST" in found["workspace"].advice
    assert found["login"].verdict is Verdict.SKIPPED
    assert config.token not in "".join(map(str, found.values()))


def test_a_host_that_is_another_endpoints_fails_with_the_right_one(lakebase_user) -> None:
    found = findings(lakebase_user.config(host="localhost", ssl_mode="verify-ca"), environ={})
    assert found["host"].verdict is Verdict.FAILED
    assert lakebase_user.lake.host in found["host"].found


def test_a_host_without_an_address_fails_before_the_login() -> None:
    found = findings({"host": "no-such.invalid", "database": "d", "user": "u", "password": "p"}, environ={})
    assert found["host"].verdict is Verdict.FAILED
    assert found["login"].verdict is Verdict.FAILED
    assert "host=" in found["login"].advice


def test_another_users_role_is_a_warning_and_then_a_rejected_login(lakebase_user) -> None:
    lakebase_user.lake.add_user("somebody@corp.example")
    config = lakebase_user.lake.config("somebody@corp.example", token=lakebase_user.token)
    found = findings(config, environ={})
    assert found["workspace"].verdict is Verdict.WARNING
    assert found["login"].verdict is Verdict.FAILED


def test_a_budget_above_what_the_server_takes_is_a_warning(lakebase_user) -> None:
    found = findings(lakebase_user.config(replicas=3), environ={}, budget=400)
    assert found["limits"].verdict is Verdict.WARNING
    assert "1200" in found["limits"].found or "3 x 400" in found["limits"].found


@pytest.mark.parametrize("while_waking", ["57P03", "wait"])
def test_a_suspended_endpoint_is_waited_for(lakebase_user, while_waking: str) -> None:
    lakebase_user.lake.suspend(wake_after=0.05, while_waking=while_waking)
    try:
        found = findings(lakebase_user.config(), environ={})["login"]
        assert found.verdict is Verdict.OK, found
    finally:
        lakebase_user.lake.resume()
