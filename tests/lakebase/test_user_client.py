"""A user's requests to the workspace without the SDK: connections, proxies, certificates, errors, forks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakebase import CredentialError, LakebasePoolConfig
from lakebase._http import MOST_REQUESTS, connections_to
from lakebase._user_client import UserClient, workspace_at
from lakebase._workers import NAME
from lakebase._workspace_errors import PermissionDenied
from lakebase.credentials import credential_source
from tests.lakebase.https_parts import Workspace, answering, serving

ENDPOINT = "projects/p/branches/b/endpoints/e"
TOKEN = "dapi0123456789abcdef"
FRESH = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path), "LAKEBASE_WARM_UP": "0"}


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DATABRICKS_", "PG", "LAKEBASE_")) or name.upper().endswith(("_PROXY", "_CA_BUNDLE")):
            monkeypatch.delenv(name)


def password_from(url: str, **overrides: object) -> str:
    settings = {"host": "h", "database": "d", "user": "u", "token": TOKEN, "endpoint": ENDPOINT, "workspace_url": url}
    return credential_source(LakebasePoolConfig(**{**settings, **overrides}).resolved({})).password()


def client_of(url: str) -> UserClient:
    workspace = workspace_at(url)
    assert workspace is not None
    return UserClient(workspace, TOKEN)


# What it asks


def test_a_users_credential_is_minted_without_the_sdk(lakebase_user) -> None:
    config = lakebase_user.config()
    program = f"""
import sys
from lakebase import LakebasePoolConfig
from lakebase.credentials import credential_source
config = LakebasePoolConfig(host="h", database="d", user={lakebase_user.name!r}, token={lakebase_user.token!r},
    endpoint={config.endpoint!r}, workspace_url={config.workspace_url!r})
assert credential_source(config.resolved({{}})).password().count(".") == 2
assert "databricks" not in sys.modules
"""
    calls = dict(lakebase_user.lake.stats().api_calls)
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60, env=FRESH)
    after = lakebase_user.lake.stats().api_calls
    assert after.get("GET /.well-known/databricks-config", 0) == calls.get("GET /.well-known/databricks-config", 0)


def test_a_request_says_who_asks_and_for_which_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_WORKSPACE_ID", "42")
    with serving(Workspace()) as server:
        assert password_from(server.url) == "minted"
        path, headers = server.requests[0]
    assert path == "/api/2.0/postgres/credentials"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["x-databricks-workspace-id"] == "42"
    assert headers["user-agent"].startswith("lakebase-pooling/")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://w.example/", "https://w.example"),
        ("w.example", "https://w.example"),
        ("https://w.example:8443/?o=12", "https://w.example:8443"),
    ],
)
def test_the_address_of_a_workspace_is_read_as_the_sdk_reads_it(given: str, url: str) -> None:
    workspace = workspace_at(given)
    assert workspace is not None
    assert workspace.url == url
    assert workspace_at(given) is workspace


def test_the_environment_names_the_workspace_where_the_configuration_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace_at(None) is None
    with serving(Workspace()) as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.url)
        assert password_from(server.url, workspace_url=None) == "minted"


def test_it_reads_endpoints_instances_and_names_as_the_sdk_does(lakebase_user) -> None:
    from lakebase.endpoints import endpoint_hosts
    from lakebase.username import user_name

    lake = lakebase_user.lake
    workspace = workspace_at(lake.workspace_url)
    assert workspace is not None
    users, sdks = UserClient(workspace, lakebase_user.token), lake.workspace_client(lakebase_user.name)
    branch = lake.endpoint.rpartition("/endpoints/")[0]
    for target in ({"endpoint": lake.endpoint}, {"endpoint": branch}, {"instance_name": lake.instance_name}):
        assert endpoint_hosts(users, **target) == endpoint_hosts(sdks, **target)  # type: ignore[arg-type]
    assert user_name(users) == user_name(sdks) == lakebase_user.name  # type: ignore[arg-type]


# Connections and threads


def test_users_share_a_few_connections() -> None:
    with serving(Workspace()) as server:
        for number in range(20):
            assert password_from(server.url, user=f"u{number}") == "minted"
        assert len(server.requests) >= 20
        assert len(server.clients) < 5


async def test_many_mints_wait_together_on_few_threads(lakebase_local) -> None:
    names = [f"crowd{number}@corp.example" for number in range(3 * MOST_REQUESTS)]
    tokens = {name: lakebase_local.add_user(name) for name in names}
    sources = [
        credential_source(lakebase_local.config(name).merged({"user": name, "token": token}).resolved({}))
        for name, token in tokens.items()
    ]
    others = set(threading.enumerate())
    with lakebase_local.hold_workspace(path="/credentials") as fault:
        tasks = [asyncio.create_task(source.apassword()) for source in sources]
        await asyncio.to_thread(fault.wait, MOST_REQUESTS)
        mine = [thread for thread in threading.enumerate() if thread.name == NAME and thread not in others]
        assert len(mine) <= MOST_REQUESTS
        assert fault.hits == MOST_REQUESTS
    assert len(set(await asyncio.gather(*tasks))) == len(names)


def test_a_server_that_closes_idle_connections_is_survived() -> None:
    with serving(Workspace()) as server, answering(server, 200, b'{"token": "t"}', Connection="close"):
        client = client_of(server.url)
        assert [client.ask("GET", "/x").token for _ in range(3)] == ["t"] * 3
        assert len(server.clients) == 3


# TLS and proxies


def test_certificates_of_ones_own_are_trusted_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Workspace(tmp_path / "tls")) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
        assert password_from(server.url) == "minted"


def test_a_certificate_that_is_not_trusted_is_final_and_says_what_to_set(tmp_path: Path) -> None:
    with serving(Workspace(tmp_path / "tls")) as server:
        with pytest.raises(CredentialError, match="REQUESTS_CA_BUNDLE") as caught:
            password_from(server.url)
        assert not server.requests
    assert not caught.value.is_transient


def test_a_missing_bundle_is_an_error_that_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with pytest.raises(CredentialError, match="REQUESTS_CA_BUNDLE"):
        password_from("https://localhost:1")


def test_requests_go_through_the_environments_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Workspace()) as proxy, serving(Workspace(tmp_path / "tls")) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:secret@127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
        assert password_from(server.url) == "minted"
        (path, headers), *_ = proxy.requests
        assert path == f"127.0.0.1:{server.server_port}"
        assert headers["proxy-authorization"].startswith("Basic ")
        assert "authorization" not in headers  # the user's token is for the workspace alone


def test_a_plain_request_through_a_proxy_names_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Workspace()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.server_port}")
        assert password_from("http://w.example") == "minted"
        assert proxy.requests[0][0] == "http://w.example/api/2.0/postgres/credentials"


def test_no_proxy_is_used_where_the_environment_excludes_the_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Workspace()) as server:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert password_from(server.url) == "minted"


# Errors


def test_a_forbidden_mint_names_the_scope_and_is_not_repeated(lakebase_user) -> None:
    with lakebase_user.lake.fail_workspace(403, path="/credentials") as fault:
        with pytest.raises(CredentialError, match="scope 'postgres'") as caught:
            credential_source(lakebase_user.config().resolved({})).password()
    assert isinstance(caught.value.__cause__, PermissionDenied)
    assert not caught.value.is_transient
    assert fault.hits == 1


def test_a_workspace_that_throttles_is_left_alone_as_long_as_it_says(lakebase_user) -> None:
    with lakebase_user.lake.fail_workspace(429, path="/credentials", count=1, retry_after=1) as fault:
        assert credential_source(lakebase_user.config().resolved({})).password()
    assert fault.hits == 1
    with lakebase_user.lake.fail_workspace(429, path="/credentials", retry_after=600) as fault:
        with pytest.raises(CredentialError) as caught:
            credential_source(lakebase_user.config().resolved({})).password()
    assert (fault.hits, caught.value.is_transient, caught.value.retry_after) == (1, True, 600.0)


def test_an_address_where_nothing_answers_is_tried_a_bounded_number_of_times() -> None:
    with pytest.raises(CredentialError, match="Unreachable") as caught:
        password_from("http://127.0.0.1:1")
    assert caught.value.is_transient


@pytest.mark.parametrize("url", ["https://", "http://[bad", "ftp://w.example"])
def test_an_address_that_is_none_is_final(url: str) -> None:
    with pytest.raises(CredentialError) as caught:
        password_from(url)
    assert not caught.value.is_transient


@pytest.mark.parametrize(
    ("status", "answer", "headers", "words"),
    [
        (200, b"<html>Sign in</html>", {}, "no JSON object"),
        (200, b"[]", {}, "no JSON object"),
        (302, b"", {"Location": "https://login.example/?next=1"}, "a redirection to login.example"),
        (200, b"{}", {}, "without a token"),
        (404, b"", {}, "NotFound: status 404"),
        (400, b'{"error": "bad", "error_code": 1}', {}, "BadRequest: bad"),
        (418, b"{", {}, "WorkspaceError: status 418"),
    ],
)
def test_an_answer_that_is_no_credential_is_told(
    status: int, answer: bytes, headers: dict[str, str], words: str
) -> None:
    with serving(Workspace()) as server, answering(server, status, answer, **headers):
        with pytest.raises(CredentialError, match=words):
            password_from(server.url)


def test_a_token_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    token = f"dapi{'secret'}é"
    with pytest.raises(CredentialError, match="characters that cannot be in one") as caught:
        password_from("http://127.0.0.1:1", token=token)
    assert token[:10] not in "".join(traceback.format_exception(caught.value))


# Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_connects_anew() -> None:
    with serving(Workspace()) as server:
        assert password_from(server.url) == "minted"
        parents = set(server.clients)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if password_from(server.url) == "minted" else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert server.clients > parents
        assert password_from(server.url) == "minted"


def test_threads_that_come_at_once_make_one_pool_of_connections() -> None:
    with serving(Workspace()) as server:
        connections = connections_to(server.url)
        with ThreadPoolExecutor(8) as threads:
            made = [future.result() for future in [threads.submit(connections.prepare) for _ in range(8)]]
        assert len({id(pool) for pool in made}) == 1
