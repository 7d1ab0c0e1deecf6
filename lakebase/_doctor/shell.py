"""Commands to copy, for what is not mended by SQL. Pure functions; each line fits a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from .finding import Fix

__all__ = ["allow_project", "create_role", "list_endpoints", "look_up", "update_endpoint"]


def list_endpoints(endpoint: str) -> Fix:
    """What shows the endpoints that there are beside one, or in a branch."""
    branch = endpoint.partition("/endpoints/")[0]
    return Fix(
        "shell", _lines("databricks postgres list-endpoints", shlex.quote(branch)), "to see those that there are"
    )


def look_up(host: str) -> Fix:
    """What asks the DNS."""
    return Fix("shell", f"getent ahosts {shlex.quote(host)}", "to ask the DNS of this machine")


def create_role(branch: str, role: str, identity: str) -> Fix:
    """
    What makes the role of an identity of the workspace.

    Args:
        branch: `projects/P/branches/B`.
        role: Its name: an e-mail address, a client id, or a group's name.
        identity: `USER`, `SERVICE_PRINCIPAL` or `GROUP`.
    """
    spec = {"postgres_role": role, "identity_type": identity, "auth_method": "LAKEBASE_OAUTH_V1"}
    return Fix("shell", _lines(f"databricks postgres create-role {shlex.quote(branch)}", _json(spec)), "or by the CLI")


def allow_project(endpoint: str, identity: str, kind: str) -> Fix:
    """
    What lets an identity use the project of an endpoint, which minting needs besides a role.

    https://docs.databricks.com/aws/en/oltp/projects/grant-permissions-programmatically
    """
    project = endpoint.removeprefix("projects/").partition("/")[0]
    entry = {f"{kind}_name": identity, "permission_level": "CAN_USE"}
    body = json.dumps({"access_control_list": [entry]}).replace(": [{", ": [\n        {")
    command = f"databricks permissions update database-projects {shlex.quote(project)}"
    return Fix("shell", _lines(command, f"--json {shlex.quote(body)}"), "as one who has CAN_MANAGE on the project")


def update_endpoint(endpoint: str, spec: Mapping[str, Any], where: str) -> Fix:
    """What changes an endpoint."""
    mask = ",".join(f"spec.{name}" for name in spec)
    command = _lines("databricks postgres update-endpoint", shlex.quote(endpoint), mask, _json(spec))
    return Fix("shell", command, where)


def _json(spec: Mapping[str, Any]) -> str:
    members = ",\n        ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in spec.items())
    return "--json " + shlex.quote('{"spec": {' + members + "}}")


def _lines(*parts: str) -> str:
    return " \\\n    ".join(parts)
