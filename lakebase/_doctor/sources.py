"""Where each setting came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._environment import settings_in
from .._settings import SECRET_FIELDS
from .facts import Facts, skipped
from .finding import Finding, Verdict

__all__ = ["check_sources"]

_FIELDS = (
    *("host", "port", "database", "user", "endpoint", "instance_name", "ssl_mode", "ssl_root_cert"),
    *("application_name", "schema", "pooled", "read_only"),
)


def check_sources(facts: Facts) -> Finding:
    """A line for each setting: its value, and the argument, the variable or the workspace that it came from."""
    check = "settings"
    config = facts.resolved
    if config is None:
        return skipped(check, "configuration")
    given, environ = facts.config.given(), facts.environ
    found = {setting.field: setting for setting in reversed(list(settings_in(environ)))}  # the first one counts
    lines = []
    for name in _FIELDS:
        value = getattr(config, name)
        if value is None or value is False:
            continue
        if given.get(name) is not None:
            source = "given"
        elif name in found and str(value) == found[name].text:
            source = found[name].variable
        else:
            source = "default" if name in ("port", "ssl_mode", "database") else "the workspace"
        lines.append(f"{name}={value} ({source})")
    lines += _identity(facts, given, environ)
    lines += _overruled(config, given, environ)
    variables = {line.rpartition("(")[2].rstrip(")") for line in lines}
    count = len([name for name in variables if name.isupper()])
    return Finding(check, Verdict.OK, f"{count} from the environment", details=tuple(lines))


def _identity(facts: Facts, given: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    if facts.resolved is not None and not facts.resolved.is_oauth:
        return [f"password: a native one ({'given' if given.get('password') else 'PGSERVICE'})"]
    url = facts.config.workspace_url or environ.get("DATABRICKS_HOST")
    profile = environ.get("DATABRICKS_CONFIG_PROFILE")
    if facts.config.workspace_client is not None:
        return ["workspace: that of workspace_client= (given)"]
    if facts.config.workspace_url is not None:
        lines = [f"workspace_url={url} (given)"]
    else:
        lines = (
            [f"workspace_url={url} (DATABRICKS_HOST)"] if url else [f"workspace: of the profile {profile or 'DEFAULT'}"]
        )
    if given.get("token") is not None:
        return [*lines, "identity: the owner of the user token (given)"]
    kind = getattr(getattr(facts.client, "config", None), "auth_type", None)
    variables = [name for name in ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID") if environ.get(name)]
    where = variables[0] if variables else f"profile {profile or 'DEFAULT'}"
    return [*lines, f"identity: by {kind or 'the SDK'} ({where})"]


def _overruled(config: Any, given: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Variables that say something else than what counts, which is what people look for in vain."""
    lines = []
    for setting in settings_in(environ):
        value = getattr(config, setting.field, None)
        if value is not None and setting.field not in SECRET_FIELDS and str(value) != setting.text:
            why = "what is given counts" if given.get(setting.field) is not None else "it is not this identity's"
            if config.user is not None and setting.field == "user" and given.get("token") is None:
                why = f"{config.user} counts"
            lines.append(f"not used: {setting.variable} ({why})")
    return lines
