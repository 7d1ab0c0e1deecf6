"""The role: whether there is one for the identity, and what it is allowed regardless of what is granted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from .._role_sql import alter_role, create_role_statements, privileges_on
from .._workspace import quiet
from ..errors import ConnectFailure
from .facts import Facts, RoleFacts, skipped
from .finding import Finding, Fix, Verdict
from .shell import create_role
from .statements import as_sql, drop_role, identity_kind

if TYPE_CHECKING:
    from ..config import LakebasePoolConfig

__all__ = ["VERIFY", "check_role", "login_fixes"]

#: Encrypts, and proves who answers.
VERIFY = Fix("shell", "export PGSSLMODE=verify-full PGSSLROOTCERT=system", "for a Lakebase of Databricks")

_ROLE = """
SELECT current_user, rolsuper, rolbypassrls, rolconnlimit, has_database_privilege(current_database(), 'CONNECT')
FROM pg_roles WHERE rolname = current_user
"""
_NAME = "role"
_TOKEN, _NO_LOGIN = "LAKEBASE_OAUTH_V1", "NO_LOGIN"
_ADMIN = "as a role that may create roles, such as the project's owner"


def check_role(facts: Facts) -> Finding:
    """The role that is logged in; where the login failed, whether the workspace has it."""
    if facts.connection is None:
        if facts.failure in (ConnectFailure.LOGIN_REJECTED, ConnectFailure.NO_ROLE):
            return _role_in_workspace(facts)
        return skipped(_NAME, "login")
    row = facts.connection.execute(_ROLE).fetchone()
    if row is None:
        return Finding(_NAME, Verdict.WARNING, "pg_roles does not have the current user")
    name, is_super, bypasses, limit, _ = row
    facts.role = RoleFacts(name, is_super or bypasses, None if limit < 0 else limit)
    if is_super or bypasses:
        statements = [alter_role(name, "NOSUPERUSER")] if is_super else []
        statements += [alter_role(name, "NOBYPASSRLS")] if bypasses else []
        return Finding(
            _NAME,
            Verdict.WARNING,
            f"{name} bypasses row-level security",
            "log in as a role without SUPERUSER and BYPASSRLS where policies are to keep users apart",
            (as_sql(statements, _ADMIN),),
        )
    own = "" if limit < 0 else f", at most {limit} connections of its own"
    return Finding(_NAME, Verdict.OK, f"{name}, subject to row-level security{own}")


def login_fixes(config: LakebasePoolConfig, failure: ConnectFailure) -> tuple[Fix, ...]:
    """What lets a login succeed that failed; what concerns the role itself is `check_role`'s to say."""
    if failure is ConnectFailure.NO_PERMISSION:
        grant = privileges_on("DATABASE", [(str(config.database),)], ("CONNECT",), str(config.user))
        statements = [grant, alter_role(str(config.user), "LOGIN")]
        return (as_sql(statements, "as the database's owner"),)
    if failure is ConnectFailure.TLS:
        return (VERIFY,)
    if failure is ConnectFailure.UNREACHABLE and config.server_host is not None:
        command = f"nc -vz {shlex.quote(config.server_host)} {config.port}"
        return (Fix("shell", command, "to see whether this network lets it through"),)
    return ()


def _role_in_workspace(facts: Facts) -> Finding:
    config = facts.resolved
    assert config is not None
    user = str(config.user)
    branch = (config.endpoint or "").partition("/endpoints/")[0]
    if facts.client is None or not branch or not config.is_oauth:
        return skipped(_NAME, "login")
    try:
        with quiet():
            methods = {
                role.status.postgres_role: _word(role.status.auth_method)
                for role in facts.client.postgres.list_roles(branch)
                if role.status is not None
            }
    except Exception as error:  # noqa: BLE001 - the client's own, or its release has no such method
        found = f"{type(error).__name__}: this identity may not list the roles of {branch}"
        return Finding(_NAME, Verdict.SKIPPED, f"only to be seen once the check of login succeeds ({found})")
    if user not in methods:
        return _missing(user, branch, methods)
    if methods[user] == _TOKEN:
        advice = "check that the token is of this identity: the check of workspace says whose it is"
        return Finding(_NAME, Verdict.NOTE, f"{branch} has the role {user}, which logs in with tokens", advice)
    if methods[user] == _NO_LOGIN:
        fixes = (as_sql([alter_role(user, "LOGIN")], _ADMIN),)
        return Finding(_NAME, Verdict.FAILED, f"the role {user} may not log in", "let it log in", fixes)
    return Finding(
        _NAME,
        Verdict.FAILED,
        f"the role {user} logs in with a native password, as CREATE ROLE makes it: it does not accept a minted token",
        "make it anew as the role of the identity; DROP ROLE is refused as long as it owns or may do something",
        (as_sql([drop_role(user), *create_role_statements(user, identity_kind(user))], _ADMIN),),
    )


def _missing(user: str, branch: str, there: dict[str, str]) -> Finding:
    found = f"{branch} has no role {user!r}"
    namesakes = [name for name in there if name and name.lower() == user.lower()]
    if namesakes:
        advice = f"Postgres tells upper from lower case: set user= (PGUSER) to {namesakes[0]!r}"
        return Finding(_NAME, Verdict.FAILED, f"{found}, and one that is spelled {namesakes[0]!r}", advice)
    kind = identity_kind(user)
    fixes = (as_sql(create_role_statements(user, kind), _ADMIN), create_role(branch, user, kind.upper()))
    return Finding(_NAME, Verdict.FAILED, found, "create the role of this identity", fixes)


def _word(value: Any) -> str:
    """An enumeration of the SDK's as its word, or the word itself."""
    return str(getattr(value, "value", value) or "")
