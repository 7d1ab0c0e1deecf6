"""Projects, branches and endpoints, created and deleted by the unmodified SDK."""

import psycopg
import pytest
from databricks.sdk import errors
from databricks.sdk.service.postgres import (
    Branch,
    BranchSpec,
    Endpoint,
    EndpointSpec,
    EndpointType,
    Project,
    ProjectSpec,
)
from google.protobuf.duration_pb2 import Duration

from tests.local.clients import ask_workspace, connection_settings

PROJECT = "projects/local"
BRANCH = "projects/local/branches/production"
READ_WRITE = EndpointType.ENDPOINT_TYPE_READ_WRITE


@pytest.fixture
def owner(lake):
    return lake.workspace_client().postgres


def test_a_branch_and_its_endpoint_come_and_go_and_lead_to_the_same_server(lake, user, owner):
    branch = owner.create_branch(
        PROJECT, Branch(spec=BranchSpec(source_branch=BRANCH, no_expiry=True)), "preview"
    ).wait()
    assert branch.name == f"{PROJECT}/branches/preview"
    assert (branch.status.default, branch.status.source_branch) == (False, BRANCH)
    made = owner.create_endpoint(
        branch.name, Endpoint(spec=EndpointSpec(READ_WRITE, autoscaling_limit_max_cu=4)), "primary"
    ).wait()
    assert made.status.hosts.host == lake.host
    assert made.status.autoscaling_limit_max_cu == 4
    assert [found.name for found in owner.list_endpoints(branch.name)] == [made.name]
    token = lake.workspace_client(user).postgres.generate_database_credential(endpoint=made.name).token
    with psycopg.connect(**connection_settings(lake, user, token)) as connection:
        assert connection.execute("select current_user").fetchone() == (user,)

    owner.delete_branch(branch.name).wait()
    assert [found.name for found in owner.list_branches(PROJECT)] == [BRANCH]
    with pytest.raises(errors.NotFound):
        owner.get_endpoint(made.name)
    with pytest.raises(errors.NotFound):
        owner.generate_database_credential(endpoint=made.name)


def test_an_endpoint_says_what_it_was_made_with(owner):
    spec = EndpointSpec(
        EndpointType.ENDPOINT_TYPE_READ_ONLY, suspend_timeout_duration=Duration(seconds=300), disabled=True
    )
    made = owner.create_endpoint(BRANCH, Endpoint(spec=spec), "reports").wait()
    assert (made.status.suspend_timeout_duration.seconds, made.status.disabled) == (300, True)
    owner.delete_endpoint(made.name).wait()


def test_a_project_comes_with_a_branch_and_an_endpoint(owner):
    made = owner.create_project(Project(spec=ProjectSpec(display_name="Shop")), "shop").wait()
    assert (made.name, made.status.display_name) == ("projects/shop", "Shop")
    (branch,) = owner.list_branches("projects/shop")
    assert branch.status.default
    assert [found.name for found in owner.list_endpoints(branch.name)] == [f"{branch.name}/endpoints/primary"]
    assert {found.name for found in owner.list_projects()} == {"projects/local", "projects/shop"}
    owner.delete_project("projects/shop").wait()
    assert [found.name for found in owner.list_projects()] == ["projects/local"]


def test_what_cannot_be_created_or_deleted_is_refused(owner):
    cases = (
        (
            lambda: owner.create_endpoint(BRANCH, Endpoint(spec=EndpointSpec(READ_WRITE)), "second"),
            "read-write endpoint",
        ),
        (lambda: owner.create_branch(PROJECT, Branch(), "production"), "already exists"),
        (lambda: owner.create_branch(PROJECT, Branch(), "Not An Id"), "branch_id must be"),
        (lambda: owner.create_branch("projects/none", Branch(), "b"), "does not exist"),
        (lambda: owner.delete_branch(BRANCH), "is this local Lakebase itself"),
        (lambda: owner.get_branch("projects/local/branches/none"), "does not exist"),
        (lambda: owner.get_operation("projects/local/operations/none"), "does not exist"),
    )
    for call, words in cases:
        with pytest.raises(errors.DatabricksError, match=words):
            call()


def test_only_the_owner_creates_and_deletes(lake, user, client):
    for call in (
        lambda: client.postgres.create_branch(PROJECT, Branch(), "mine"),
        lambda: client.postgres.delete_branch(BRANCH),
        lambda: client.postgres.delete_role(f"{BRANCH}/roles/none"),
    ):
        with pytest.raises(errors.PermissionDenied, match="does not have CAN MANAGE"):
            call()
    assert client.postgres.get_branch(BRANCH).name == BRANCH


def test_a_list_comes_in_pages(lake, user, owner):
    for number in range(3):
        owner.create_branch(PROJECT, Branch(), f"page-{number}").wait()
    names = [found.name for found in owner.list_branches(PROJECT, page_size=2)]
    assert names == [f"{PROJECT}/branches/page-{number}" for number in range(3)] + [BRANCH]
    status, answer = ask_workspace(lake, f"/api/2.0/postgres/{PROJECT}/branches?page_size=-1", user=user)
    assert (status, "page_size must be a number" in answer["message"]) == (400, True)
    for number in range(3):
        owner.delete_branch(f"{PROJECT}/branches/page-{number}").wait()
