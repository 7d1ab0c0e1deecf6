"""
What a user's token allows.

The token that Databricks Apps forwards is an OAuth token with the scopes of the app's user authorization:
https://docs.databricks.com/aws/en/dev-tools/databricks-apps/auth. It mints a database credential only with the scope
`postgres`; without it the workspace answers 403.
"""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .facts import Facts, skipped
from .finding import Finding, Fix, Verdict

__all__ = ["check_scopes", "is_about_scopes", "scope_fixes"]

_SCOPE = "postgres"
#: Tokens of other kinds than an app's have this one.
_EVERYTHING = "all-apis"
# Every token that an app gets has these; they are not the app's to list.
_IDENTITY = ("iam.", "openid", "offline_access", "email", "profile")


def check_scopes(facts: Facts) -> Finding | list[Finding]:
    """Whether a user's token may mint, as far as it tells. Asks nobody: the token itself has its scopes."""
    check = "token scopes"
    token = facts.config.token
    if token is None:
        return []
    claims = _claims_of(token)
    facts.scopes = _scopes_in(claims)
    expires_at = claims.get("exp")
    if isinstance(expires_at, int | float) and (ago := time.time() - expires_at) > 0:
        found = f"the token expired {ago / 60:.0f} min ago"
        return Finding(check, Verdict.FAILED, found, "take the one of a new request: the app gets it for an hour")
    if facts.scopes is None and facts.client is None:  # it may be no token at all
        return skipped(check, "configuration" if facts.resolved is None else "workspace")
    if facts.scopes is None:
        return Finding(check, Verdict.OK, "a token without scopes of its own: it allows what its owner may do")
    shown = ", ".join(facts.scopes)
    if _SCOPE in facts.scopes or _EVERYTHING in facts.scopes:
        return Finding(check, Verdict.OK, f"{shown}: enough to mint a database credential")
    facts.lacks_scope = True
    has = f"has the scopes {shown}, and not {_SCOPE!r}" if shown else f"has no scope, and so not {_SCOPE!r}"
    return Finding(
        check,
        Verdict.FAILED,
        f"the token {has}: the workspace answers 403 to a request for a database credential",
        f"add the scope {_SCOPE!r} to the user authorization of the app, and deploy it again; users are asked to agree "
        "when they sign in anew",
        fixes=scope_fixes(facts.scopes, facts.environ),
    )


def is_about_scopes(words: str) -> bool:
    """Whether the workspace refuses a token for what it may not do, as in "does not have required scopes: postgres"."""
    return "required scopes" in words


def scope_fixes(have: Sequence[str] | None, environ: Mapping[str, str]) -> tuple[Fix, ...]:
    """
    What adds the scope to an app.

    Args:
        have: The scopes of its users' tokens; `None` if they are not known.
        environ: Where Databricks Apps leaves the app's name.
    """
    kept = [scope for scope in have or () if not scope.startswith(_IDENTITY)]
    wanted = [*kept, *([] if _SCOPE in kept else [_SCOPE])]
    app = environ.get("DATABRICKS_APP_NAME") or "APP_NAME"
    listed = "\n".join(f"        - {scope}" for scope in wanted)
    body = json.dumps({"user_api_scopes": wanted})
    whole = "the list replaces the app's: add the scopes that it needs besides" if have is None else ""
    return (
        Fix(
            "yaml",
            f"resources:\n  apps:\n    my_app:  # the app's key\n      user_api_scopes:\n{listed}",
            "in databricks.yml, then `databricks bundle deploy`",
        ),
        Fix(
            "shell",
            f"databricks apps update {shlex.quote(app)} \\\n    --json {shlex.quote(body)}",
            f"or without a bundle{_after(whole)}",
        ),
        Fix("settings", f"Compute > Apps > {app} > Edit > User authorization > Add scope > {_SCOPE}", "or by hand"),
    )


def _after(words: str) -> str:
    return f"; {words}" if words else ""


def _claims_of(token: str) -> Mapping[str, Any]:
    """
    What a JSON Web Token says of itself; nothing for a token of another kind.

    Its signature is not checked: this is what to expect of the workspace, which checks it.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _scopes_in(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The scopes among the claims; `None` if there are none."""
    found = claims.get("scope", claims.get("scp"))
    if isinstance(found, str):
        return tuple(found.split())
    return tuple(map(str, found)) if isinstance(found, list) else None
