"""
Roles of identities, and what they may do: looked at, and granted where it is missing.

`create_role_statements`, `grant_statements`, `revoke_statements` and `row_security_statements` only write SQL. They are
for programs that say what to run, as `lakebase doctor` does.
"""

from __future__ import annotations

from ._access import Access, IdentityKind, Level
from ._role_sql import create_role_statements, grant_statements, revoke_statements, row_security_statements

__all__ = [
    "Access",
    "IdentityKind",
    "Level",
    "create_role_statements",
    "grant_statements",
    "revoke_statements",
    "row_security_statements",
]
