"""The doctor finds what is wrong, once, and says what to do."""

from __future__ import annotations

import io

import pytest

from lakebase.doctor import Finding, Verdict, examine
from tests.lakebase.doctor_parts import run

CHECKS = ["configuration", "workspace", "host", "credential", "login", "TLS", "role", "limits"]


pytestmark = pytest.mark.usefixtures("no_ambient_settings")


def findings(config, **arguments) -> dict[str, Finding]:
    found = list(examine(config, **arguments))
    return {finding.check: finding for finding in found}


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
    status, text = run()
    assert status == 0, text
    shown = [line[6:19].strip() for line in text.splitlines() if not line.startswith(" ")]
    assert [check for check in shown if check in CHECKS] == CHECKS
    assert set(shown) - set(CHECKS) <= {"settings", "endpoint", "pooler", "kept awake"}
    assert lakebase_local.client_secret not in text


def test_without_a_terminal_a_native_password_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("--user", "x", "--native-password") == (2, "")
    assert capsys.readouterr().err == "lakebase doctor: no terminal to ask for the password on; set PGPASSWORD\n"


def test_a_native_password_needs_no_workspace(lakebase_local, monkeypatch: pytest.MonkeyPatch) -> None:
    lakebase_local.add_password_role("doctors_role", "d0ct0r-pw")
    monkeypatch.setenv("PGPASSWORD", "d0ct0r-pw")
    where = ["--host", lakebase_local.host, "--port", str(lakebase_local.port), "--database", lakebase_local.database]
    who = ["--user", "doctors_role", "--native-password", "--ssl-root-cert", str(lakebase_local.ca_file)]
    status, text = run(*where, *who, "--ssl-mode", "verify-ca")
    assert status == 0, text
    assert "not needed for a native password" in text
    monkeypatch.setenv("PGPASSWORD", "wr0ng-pw")
    status, text = run(*where, *who)
    assert status == 1
    assert "Check that user=" in text
    assert "wr0ng-pw" not in text


def test_what_depends_on_a_failure_is_skipped() -> None:
    found = findings({"database": "d", "user": "u"}, environ={})
    assert found["configuration"].verdict is Verdict.FAILED
    assert "LAKEBASE_ENDPOINT" in found["configuration"].found
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


@pytest.mark.parametrize("option", ["--port", "--replicas", "--budget", "--workers"])
@pytest.mark.parametrize("number", ["0", "-3"])
def test_a_number_that_cannot_be_is_not_taken_for_one_that_was_not_given(option: str, number: str) -> None:
    status, text = run("--host", "db.example", "--database", "d", "--user", "u", f"{option}={number}")
    assert status == 1
    name = option if option in ("--budget", "--workers") else option.removeprefix("--")  # others are configuration
    assert text.startswith(f"FAIL  configuration  {name}={number}: expected a whole number")
    assert len([line for line in text.splitlines() if not line.startswith(" ")]) == 1


def test_all_that_is_missing_is_named_before_the_workspace_is_asked() -> None:
    class Unasked:
        @property
        def current_user(self) -> None:
            raise AssertionError("the workspace was asked")

    found = findings({"workspace_client": Unasked()}, environ={})["configuration"]
    assert found.verdict is Verdict.FAILED
    variables = "LAKEBASE_ENDPOINT, PGENDPOINT, LAKEBASE_AUTOSCALING_ENDPOINT"
    assert found.found == f"missing: endpoint= ({variables})"
    assert "it is enough" in found.advice
    found = findings({"workspace_client": Unasked()}, environ={"PGHOST": "db.example"})["configuration"]
    assert found.found == f"missing: database= (PGDATABASE), endpoint= ({variables})"
    found = findings({"password": "p"}, environ={})["configuration"]
    assert found.found == "missing: host= (PGHOST), database= (PGDATABASE)"
    found = findings({"password": "p"}, environ={"PGHOST": "db.example"})["configuration"]
    assert found.found == "missing: database= (PGDATABASE)"


def test_an_endpoint_is_enough(lakebase_user) -> None:
    config = lakebase_user.config(host=None, database=None)
    found = findings(config, environ={})
    assert f"on the host of {config.endpoint}" in found["configuration"].found
    assert f"{lakebase_user.lake.host} is 127.0.0.1, as the workspace says" in found["host"].found
    assert found["login"].verdict is Verdict.OK
    with lakebase_user.lake.fail_workspace(403, path="/endpoints"):
        unknown = findings(config.merged({"endpoint": f"{config.endpoint}-2"}), environ={})
    assert (unknown["host"].verdict, unknown["login"].verdict) == (Verdict.FAILED, Verdict.SKIPPED)


def test_a_user_that_the_workspace_cannot_tell_is_missing_for_the_sdks_reason(lakebase_local, monkeypatch) -> None:
    for name, value in {**lakebase_local.environment(), "DATABRICKS_TOKEN": "dapi-of-nobody"}.items():
        monkeypatch.setenv(name, value)
    for name in ("PGUSER", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    found = findings({})["configuration"]
    assert "(PermissionDenied: Invalid access token)" in found.found
    assert found.advice.startswith("check DATABRICKS_TOKEN: ")


def test_what_is_set_is_to_be_checked_and_not_to_be_set(lakebase_local, monkeypatch) -> None:
    for name, value in {**lakebase_local.environment(), "DATABRICKS_CLIENT_SECRET": "wr0ng"}.items():
        monkeypatch.setenv(name, value)
    found = findings({})
    assert found["workspace"].found == "ValueError: invalid_client: Client authentication failed"
    assert found["workspace"].advice.startswith("check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET: ")
    assert found["credential"].verdict is Verdict.SKIPPED
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    found = findings({})
    assert found["workspace"].advice.startswith("set DATABRICKS_HOST and an identity")


def test_a_workspace_that_does_not_answer_is_not_an_identity_that_it_refuses(lakebase_user) -> None:
    with lakebase_user.lake.fail_workspace(500, path="/Me"):
        found = findings(lakebase_user.config(), environ={})["workspace"]
    assert found.verdict is Verdict.FAILED
    assert found.advice.startswith("check that workspace_url= (DATABRICKS_HOST) is the workspace's address and answers")


def test_a_read_only_host_that_there_is_not_is_found(lakebase_user) -> None:
    config = lakebase_user.config().merged({"read_only": True})
    found = findings(config, environ={})
    assert found["host"].verdict is Verdict.FAILED
    assert "has no host for pooled=False, read_only=True" in found["host"].found


def test_a_pooler_that_there_is_not_is_found(lakebase_local) -> None:
    lakebase_local.add_password_role("doctors_pooled_role", "d0ct0r-pw")
    direct = lakebase_local.config("doctors_pooled_role", password="d0ct0r-pw")
    given = {"host": str(direct.host), "port": direct.port, "database": direct.database, "user": direct.user}
    found = findings({**given, "password": "d0ct0r-pw", "pooled": True}, environ={})
    assert found["configuration"].verdict is Verdict.FAILED
    assert "the pooler's host is not known" in found["configuration"].found
    if lakebase_local.pooled_host is not None:
        pooled = lakebase_local.config("doctors_pooled_role", password="d0ct0r-pw", pooled=True)
        assert findings(pooled, environ={})["login"].verdict is Verdict.OK
