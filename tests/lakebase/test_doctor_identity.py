"""The doctor on identities: scopes of a user's token, roles that are missing or of another kind, and the endpoint."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time

import pytest
from databricks.sdk.service.postgres import (
    Endpoint,
    EndpointSpec,
    EndpointType,
    Role,
    RoleAttributes,
    RoleAuthMethod,
    RoleIdentityType,
    RoleRoleSpec,
)
from google.protobuf.duration_pb2 import Duration

from lakebase.doctor import Verdict, diagnose, examine
from tests.lakebase.doctor_parts import found, found_one, mend, run

pytestmark = pytest.mark.usefixtures("no_ambient_settings")

SCOPED = ["postgres", "iam.current-user:read"]
UNSCOPED = ["iam.current-user:read", "sql"]


@pytest.fixture
def app_environment(no_ambient_settings, lakebase_local, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app of the local Lakebase finds in its environment."""
    for name, value in lakebase_local.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def branch(lakebase_local) -> str:
    return lakebase_local.endpoint.partition("/endpoints/")[0]


def remade(lakebase_user, branch: str, **spec) -> None:
    """Replace the role of a user by one of other properties; none if there are no properties."""
    owner = lakebase_user.lake.workspace_client().postgres
    (name,) = [role.name for role in owner.list_roles(branch) if role.status.postgres_role == lakebase_user.name]
    owner.delete_role(name).wait()
    if spec:
        role = Role(spec=RoleRoleSpec(postgres_role=lakebase_user.name, **spec))
        owner.create_role(branch, role).wait()


# Scopes


def test_a_users_token_without_the_scope_is_told_with_what_adds_it(lakebase_user) -> None:
    token = lakebase_user.lake.forwarded_token(lakebase_user.name, UNSCOPED)
    findings = {finding.check: finding for finding in diagnose(lakebase_user.config(token=token), environ={})}
    scopes = findings["token scopes"]
    assert scopes.verdict is Verdict.FAILED
    assert "iam.current-user:read, sql, and not 'postgres'" in scopes.found
    bundle, command, settings = scopes.fixes
    assert bundle.text.splitlines()[-3:] == ["      user_api_scopes:", "        - sql", "        - postgres"]
    assert '--json \'{"user_api_scopes": ["sql", "postgres"]}\'' in command.text
    assert "Add scope > postgres" in settings.text
    # The 403 is the same cause, and not told a second time.
    assert findings["credential"].verdict is findings["endpoint"].verdict is Verdict.SKIPPED
    assert token not in repr(list(findings.values()))


def test_the_workspace_refuses_what_the_token_lacks(lakebase_user) -> None:
    token = lakebase_user.lake.forwarded_token(lakebase_user.name, UNSCOPED)
    findings = {finding.check: finding for finding in examine(lakebase_user.config(token=token), environ={})}
    credential = findings["credential"]
    assert "PermissionDenied" in credential.found
    assert "does not have required scopes: postgres" in credential.found
    assert [fix.kind for fix in credential.fixes] == ["yaml", "shell", "settings"]
    assert "the list replaces the app's" in credential.fixes[1].where


def test_an_identity_that_may_not_use_the_project_has_the_command_that_allows_it(lakebase_user) -> None:
    denied = f"User {lakebase_user.name} does not have CAN_USE on the project"
    with lakebase_user.lake.fail_workspace(403, denied, path="/credentials"):
        credential = found_one("credential", lakebase_user.config())
    assert (credential.verdict, denied in credential.found) == (Verdict.FAILED, True)
    assert credential.fixes[0].text.splitlines() == [
        "databricks permissions update database-projects local \\",
        '    --json \'{"access_control_list": [',
        f'        {{"user_name": "{lakebase_user.name}", "permission_level": "CAN_USE"}}]}}\'',
    ]


def test_the_app_is_called_by_the_name_that_its_environment_has(lakebase_user) -> None:
    token = lakebase_user.lake.forwarded_token(lakebase_user.name, UNSCOPED)
    environ = {"DATABRICKS_APP_NAME": "orders"}
    findings = {finding.check: finding for finding in diagnose(lakebase_user.config(token=token), environ=environ)}
    assert findings["token scopes"].fixes[1].text.startswith("databricks apps update orders ")


def test_a_token_without_any_scope_is_said_to_have_none(lakebase_user) -> None:
    token = lakebase_user.lake.forwarded_token(lakebase_user.name, ())
    scopes = found_one("token scopes", lakebase_user.config(token=token))
    assert scopes.found.startswith("the token has no scope, and so not 'postgres': the workspace answers 403")


@pytest.mark.parametrize(
    ("kind", "words"), [("forwarded", "enough to mint"), ("personal", "without scopes of its own")]
)
def test_a_token_that_may_mint_is_fine(lakebase_user, kind: str, words: str) -> None:
    lake, name = lakebase_user.lake, lakebase_user.name
    token = lake.forwarded_token(name, SCOPED) if kind == "forwarded" else lakebase_user.token
    scopes = found_one("token scopes", lakebase_user.config(token=token))
    assert scopes.verdict is Verdict.OK
    assert words in scopes.found


def test_a_token_that_has_expired_is_told_before_anything_else_is_guessed(lakebase_user) -> None:
    claims = {"sub": lakebase_user.name, "scope": "postgres", "exp": time.time() - 600}
    token = f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}.sig"
    scopes = found_one("token scopes", lakebase_user.config(token=token))
    assert (scopes.verdict, scopes.found) == (Verdict.FAILED, "the token expired 10 min ago")
    assert found_one("workspace", lakebase_user.config(token=token)).verdict is Verdict.FAILED


@pytest.mark.parametrize("token", ["a.b.c", "a.W10=.c", "a.eyJzY29wZSI6MX0=.c", "....", "dapi\u00e9"])
def test_nothing_is_said_of_the_scopes_of_what_may_be_no_token(lakebase_user, token: str) -> None:
    scopes = found_one("token scopes", lakebase_user.config(token=token))
    assert (scopes.verdict, "check of workspace" in scopes.found) == (Verdict.SKIPPED, True)


def test_a_token_that_the_workspace_does_not_know_is_told_as_that(lakebase_local) -> None:
    given = {
        "token": "dapi-of-nobody",
        "workspace_url": lakebase_local.workspace_url,
        "endpoint": "projects/p/branches/b",
    }
    configuration = found_one("configuration", given)
    words = "the workspace does not say whose the token is (PermissionDenied: Invalid access token)"
    assert (configuration.verdict, configuration.found) == (Verdict.FAILED, words)
    assert configuration.advice.startswith("check token=: it may have expired")
    assert found_one("token scopes", given).verdict is Verdict.SKIPPED


def test_an_app_has_no_scopes_to_look_at(app_environment) -> None:
    assert [each for each in diagnose() if each.check == "token scopes"] == []


# The token on the command line


@pytest.mark.usefixtures("app_environment")
def test_the_token_of_a_user_comes_from_a_variable(lakebase_user, monkeypatch: pytest.MonkeyPatch) -> None:
    token = lakebase_user.lake.forwarded_token(lakebase_user.name, SCOPED)
    monkeypatch.setenv("USER_TOKEN", f"Bearer {token}\n")  # as copied from a header
    status, text = run("--user-token-env", "USER_TOKEN")
    assert status == 0, text
    assert f"{lakebase_user.name} to databricks_postgres" in text
    assert "not used: PGUSER (it is not this identity's)" in text
    assert token not in text


@pytest.mark.usefixtures("app_environment")
def test_the_token_of_a_user_comes_from_stdin(lakebase_user) -> None:
    token = lakebase_user.lake.forwarded_token(lakebase_user.name, UNSCOPED)
    command = [sys.executable, "-m", "lakebase", "doctor", "--user-token", "-"]
    ended = subprocess.run(command, input=f"{token}\n", capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "FAIL  token scopes" in ended.stdout
    assert token not in ended.stdout + ended.stderr


def test_a_token_as_an_argument_is_refused_and_not_repeated(capsys) -> None:
    assert run("--user-token", "dapi-secret") == (2, "")
    message = capsys.readouterr().err
    assert "list of processes" in message
    assert "secret" not in message


@pytest.mark.parametrize("arguments", [("--user-token", "-"), ("--user-token-env", "NO_SUCH_VARIABLE")])
def test_a_token_that_is_not_there_is_a_usage_error(arguments, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(*arguments) == (2, "")
    assert arguments[0] in capsys.readouterr().err


# Roles


def test_an_identity_without_a_role_gets_one_by_the_sql_of_the_finding(lakebase_user, branch: str, admin) -> None:
    remade(lakebase_user, branch)
    role = found_one("role", lakebase_user.config())
    assert role.verdict is Verdict.FAILED
    assert f"has no role {lakebase_user.name!r}" in role.found
    assert f"databricks postgres create-role {branch}" in role.fixes[1].text
    assert '"identity_type": "USER"' in role.fixes[1].text
    assert f"databricks_create_role('{lakebase_user.name}', 'USER');" in role.sql
    mend(admin, role)
    assert found_one("role", lakebase_user.config()).verdict is Verdict.OK


def test_the_role_of_a_service_principal_is_made_as_one(lakebase_local, branch: str, admin) -> None:
    client_id, _ = lakebase_local.add_service_principal()
    owner = lakebase_local.workspace_client().postgres
    (name,) = [role.name for role in owner.list_roles(branch) if role.status.postgres_role == client_id]
    owner.delete_role(name).wait()
    role = found_one("role", lakebase_local.config(client_id))
    assert '"identity_type": "SERVICE_PRINCIPAL"' in role.fixes[1].text
    mend(admin, role)
    assert found_one("role", lakebase_local.config(client_id)).verdict is Verdict.OK


def test_a_role_that_is_spelled_otherwise_is_named(lakebase_local, branch: str) -> None:
    name = "Spelled.Otherwise@corp.example"
    lakebase_local.add_user(name)
    lakebase_local.add_user(name.lower())
    owner = lakebase_local.workspace_client().postgres
    (lower,) = [role.name for role in owner.list_roles(branch) if role.status.postgres_role == name.lower()]
    owner.delete_role(lower).wait()
    role = found_one("role", lakebase_local.config(name.lower()))
    assert role.verdict is Verdict.FAILED
    assert repr(name) in role.advice


def test_a_role_with_a_native_password_takes_no_token(lakebase_user, branch: str, admin) -> None:
    remade(lakebase_user, branch, auth_method=RoleAuthMethod.PG_PASSWORD_SCRAM_SHA_256)
    role = found_one("role", lakebase_user.config())
    assert role.verdict is Verdict.FAILED
    assert "does not accept a minted token" in role.found
    mend(admin, role)
    assert found_one("role", lakebase_user.config()).verdict is Verdict.OK


def test_a_role_that_may_not_log_in_is_let_in_by_the_sql_of_the_finding(lakebase_user, branch: str, admin) -> None:
    remade(lakebase_user, branch, auth_method=RoleAuthMethod.NO_LOGIN)
    role = found_one("role", lakebase_user.config())
    assert role.verdict is Verdict.FAILED
    assert "may not log in" in role.found
    mend(admin, role)


def test_the_role_that_is_there_is_not_the_cause_of_a_rejected_login(lakebase_user) -> None:
    lakebase_user.lake.add_user("somebody.else@corp.example")
    config = lakebase_user.lake.config("somebody.else@corp.example", token=lakebase_user.token)
    role = found_one("role", config)
    assert role.verdict is Verdict.NOTE
    assert "which logs in with tokens" in role.found


def test_roles_that_may_not_be_listed_are_not_guessed(lakebase_user, branch: str) -> None:
    remade(lakebase_user, branch)
    with lakebase_user.lake.fail_workspace(403, path="/roles"):
        role = found_one("role", lakebase_user.config())
    assert role.verdict is Verdict.SKIPPED
    assert "may not list the roles" in role.found


def test_a_role_that_bypasses_row_level_security_is_mended(lakebase_user, branch: str, admin) -> None:
    remade(lakebase_user, branch, identity_type=RoleIdentityType.USER, attributes=RoleAttributes(bypassrls=True))
    role = found_one("role", lakebase_user.config())
    assert role.verdict is Verdict.WARNING
    mend(admin, role)
    assert found_one("role", lakebase_user.config()).verdict is Verdict.OK


def test_a_database_that_is_closed_is_opened_by_the_sql_of_the_finding(lakebase_user, admin) -> None:
    admin.execute("CREATE DATABASE closed")
    admin.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    try:
        config = lakebase_user.config(database="closed")
        login = found_one("login", config)
        assert login.verdict is Verdict.FAILED
        admin.execute(login.sql.splitlines()[0].encode())
        assert found_one("login", config).verdict is Verdict.OK
    finally:
        admin.execute("DROP DATABASE closed WITH (FORCE)")


# The endpoint


def test_a_suspended_endpoint_is_seen_before_it_wakes(lakebase_user) -> None:
    lakebase_user.lake.suspend(wake_after=0.05)
    try:
        endpoint = found_one("endpoint", lakebase_user.config())
    finally:
        lakebase_user.lake.resume()
    assert endpoint.verdict is Verdict.NOTE
    assert endpoint.found.startswith("IDLE, 1 CU")


@pytest.mark.parametrize("by_user", [True, False])
def test_an_endpoint_that_is_disabled_or_about_to_sleep_is_told(lakebase_user, branch: str, by_user: bool) -> None:
    spec = EndpointSpec(
        EndpointType.ENDPOINT_TYPE_READ_ONLY,
        autoscaling_limit_min_cu=1,
        autoscaling_limit_max_cu=4,
        suspend_timeout_duration=Duration(seconds=300),
        disabled=by_user,
    )
    owner = lakebase_user.lake.workspace_client()
    made = owner.postgres.create_endpoint(branch, Endpoint(spec=spec), "asleep").wait()
    try:
        config = lakebase_user.config(endpoint=made.name)
        if not by_user:  # the SDK's client, whose durations are no texts
            config = config.merged({"workspace_client": owner, "user": lakebase_user.lake.admin_user})
        endpoint = found_one("endpoint", config)
    finally:
        owner.postgres.delete_endpoint(made.name).wait()
    assert "ACTIVE, 1 to 4 CU, suspended after 300 s without use" in endpoint.found
    assert endpoint.verdict is (Verdict.FAILED if by_user else Verdict.OK)
    if by_user:
        assert (
            f"databricks postgres update-endpoint \\\n    {made.name} \\\n    spec.disabled" in endpoint.fixes[0].text
        )


def test_an_endpoint_that_there_is_not_has_the_command_that_lists_them(lakebase_user, branch: str) -> None:
    config = lakebase_user.config(endpoint=f"{branch}/endpoints/none")
    credential = found_one("credential", config)
    assert credential.verdict is Verdict.FAILED
    assert f"databricks postgres list-endpoints \\\n    {branch}" in credential.fixes[0].text
    assert found_one("endpoint", config).verdict is Verdict.SKIPPED


def test_a_provisioned_instance_has_a_state(lakebase_user) -> None:
    config = lakebase_user.config(endpoint=None, instance_name=lakebase_user.lake.instance_name)
    endpoint = found_one("endpoint", config)
    assert (endpoint.verdict, endpoint.found) == (Verdict.OK, "a provisioned instance, AVAILABLE")


def test_what_is_missing_has_the_lines_that_set_it() -> None:
    (configuration,) = found("configuration", {"database": "d"})
    assert configuration.fixes[0].text == "env:\n  - name: LAKEBASE_ENDPOINT\n    valueFrom: postgres"
    assert configuration.fixes[-1].text == 'eval "$(lakebase local env)"'
    workspace = found_one("workspace", {"endpoint": "projects/p/branches/b", "user": "u"})
    assert "databricks auth login" in workspace.fixes[0].text


def test_another_host_than_the_endpoints_has_the_line_that_corrects_it(lakebase_user) -> None:
    host = found_one("host", lakebase_user.config(host="localhost", ssl_mode="verify-ca"))
    assert host.fixes[0].text == f"export PGHOST={lakebase_user.lake.host}"


def test_a_port_that_nothing_listens_on_has_the_command_that_tries_it() -> None:
    config = {"host": "127.0.0.1", "port": 1, "database": "d", "user": "u", "password": "p"}
    login = found_one("login", config)
    assert (login.verdict, login.fixes[0].text) == (Verdict.FAILED, "nc -vz 127.0.0.1 1")


def test_a_certificate_that_is_not_trusted_has_the_settings_that_verify(lakebase_user, tmp_path) -> None:
    (tmp_path / "empty.pem").write_text("")
    login = found_one("login", lakebase_user.config(ssl_root_cert=str(tmp_path / "empty.pem")))
    assert login.verdict is Verdict.FAILED
    assert login.fixes[0].text == "export PGSSLMODE=verify-full PGSSLROOTCERT=system"


def test_a_name_without_an_address_has_the_command_that_asks_the_dns() -> None:
    (host,) = found("host", {"host": "no-such.invalid", "database": "d", "user": "u", "password": "p"})
    assert host.fixes[0].text == "getent ahosts no-such.invalid"


def test_a_connection_that_is_lost_in_between_is_no_traceback(lakebase_user) -> None:
    seen = []
    for finding in examine(lakebase_user.config(), environ={}):
        seen.append(finding)
        if finding.check == "TLS":
            lakebase_user.lake.drop_connections(lakebase_user.name)
    role = next(finding for finding in seen if finding.check == "role")
    assert role.verdict is Verdict.WARNING
    assert "did not answer this check" in role.found


def test_the_login_of_the_workspaces_owner_is_a_warning(lakebase_local) -> None:
    role = found_one("role", lakebase_local.config(lakebase_local.admin_user))
    assert role.verdict is Verdict.WARNING
    assert role.sql == f'ALTER ROLE "{lakebase_local.admin_user}" NOBYPASSRLS;'


def test_settings_say_where_each_came_from(lakebase_user) -> None:
    given = {"token": lakebase_user.token, "workspace_url": lakebase_user.lake.workspace_url}
    environ = {**lakebase_user.lake.environment(), "PGAPPNAME": "orders"}
    findings = diagnose({**given, "port": lakebase_user.lake.port}, environ=environ)
    (lines,) = [finding.details for finding in findings if finding.check == "settings"]
    assert f"host={lakebase_user.lake.host} (PGHOST)" in lines
    assert f"port={lakebase_user.lake.port} (given)" in lines
    assert f"user={lakebase_user.name} (the workspace)" in lines
    assert "application_name=orders (PGAPPNAME)" in lines
    assert "identity: the owner of the user token (given)" in lines
    assert "not used: PGUSER (it is not this identity's)" in lines
    assert lakebase_user.token not in str(lines)
