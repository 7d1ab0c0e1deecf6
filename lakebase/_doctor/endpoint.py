"""The endpoint's state as the workspace tells it, before anything connects and wakes it; and its pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._workspace import quiet
from ..endpoints import read_write_endpoint
from ..hosts import direct_host, is_pooled_host
from ..limits import POOLER_QUEUE_SECONDS, pooler_server_connections
from .facts import EndpointFacts, Facts, first_line, skipped
from .finding import Finding, Verdict
from .shell import update_endpoint

if TYPE_CHECKING:
    from ..config import LakebasePoolConfig

__all__ = ["check_endpoint", "check_pooler"]


def check_endpoint(facts: Facts) -> Finding | list[Finding]:
    """Whether it is on, asleep or disabled, how large it may get, and when it is suspended."""
    check = "endpoint"
    config = facts.resolved
    if config is None:
        return skipped(check, "configuration")
    if not config.is_oauth and config.workspace_client is None:
        return []
    if facts.client is None or facts.lacks_scope:
        return skipped(check, "workspace" if facts.client is None else "token scopes")
    try:
        with quiet():
            if config.instance_name is not None:
                return _instance(facts, facts.client.database.get_database_instance(config.instance_name))
            name = str(config.endpoint)
            if "/endpoints/" not in name:
                name = read_write_endpoint(facts.client, name)
            return _endpoint(facts, name, facts.client.postgres.get_endpoint(name).status)
    except Exception as error:  # noqa: BLE001 - the client's own; the check of host says what to do
        target = config.endpoint or config.instance_name
        return Finding(check, Verdict.SKIPPED, f"{target} is not shown: {type(error).__name__}: {first_line(error)}")


def _endpoint(facts: Facts, name: str, status: Any) -> Finding:
    check = "endpoint"
    state = _word(getattr(status, "current_state", None))
    suspend_after = _seconds(getattr(status, "suspend_timeout_duration", None))
    facts.endpoint = EndpointFacts(state, suspend_after)
    least, most = (getattr(status, f"autoscaling_limit_{end}_cu", None) for end in ("min", "max"))
    size = "" if most is None else f", {most:g} CU" if least in (None, most) else f", {least:g} to {most:g} CU"
    sleep = "" if not suspend_after else f", suspended after {_span(suspend_after)} without use"
    found = f"{state or 'its state is not told'}{size}{sleep}"
    if getattr(status, "disabled", None):
        fix = update_endpoint(name, {"disabled": False}, "to enable it")
        return Finding(check, Verdict.FAILED, f"disabled: no connection enables it ({found})", "enable it", (fix,))
    if state == "IDLE":
        return Finding(check, Verdict.NOTE, f"{found}; it is suspended, and the login below wakes it")
    if state == "DEGRADED":
        advice = "see the project's page in the workspace; connections may be slow or fail"
        return Finding(check, Verdict.WARNING, found, advice)
    return Finding(check, Verdict.OK, found)


def _instance(facts: Facts, instance: Any) -> Finding:
    state = _word(instance.state)
    facts.endpoint = EndpointFacts(state)
    found = f"a provisioned instance, {state or 'its state is not told'}"
    if getattr(instance, "stopped", None) or state == "STOPPED":
        return Finding("endpoint", Verdict.FAILED, found, "start the instance")
    return Finding("endpoint", Verdict.OK, found)


def check_pooler(facts: Facts) -> Finding | list[Finding]:
    """Whether the built-in pooler is used, and as it has to be."""
    check = "pooler"
    config = facts.resolved
    if config is None:
        return skipped(check, "configuration")
    host = config.server_host or ""
    if not config.pooled:
        if is_pooled_host(host):
            return Finding(
                check,
                Verdict.WARNING,
                f"{host} is the pooler's name, and pooled= is not set: session settings and prepared statements are "
                "used as if one server session were behind it",
                f"set pooled=True, or host= (PGHOST) to {direct_host(host)}",
            )
        if facts.hosts is None or facts.hosts.pooled is None:
            return []
        return Finding(check, Verdict.OK, f"not used; {facts.hosts.pooled} serves roles with native passwords")
    return _used(facts, config)


def _used(facts: Facts, config: LakebasePoolConfig) -> Finding:
    check = "pooler"
    if facts.connection is None:
        return skipped(check, "login")
    units = config.compute_units or (facts.hosts.max_compute_units if facts.hosts else None)
    most = "" if units is None else f", of which there are about {pooler_server_connections(units)}"
    found = f"used; a client waits at most {POOLER_QUEUE_SECONDS:g} s for a server connection{most}"
    if config.timeout > POOLER_QUEUE_SECONDS:
        advice = f"lower timeout={config.timeout:g}: what is above that has no effect"
        return Finding(check, Verdict.WARNING, found, advice)
    from psycopg import capabilities

    if not capabilities.has_send_close_prepared():
        advice = "use libpq 17 or newer, as psycopg[binary] brings it"
        return Finding(check, Verdict.NOTE, f"{found}; this libpq has prepared statements off", advice)
    return Finding(check, Verdict.OK, found)


def _word(value: Any) -> str:
    return str(getattr(value, "value", value) or "")


def _seconds(duration: Any) -> float | None:
    """A duration as the SDK's releases give it (protobuf, text) in seconds."""
    if duration is None:
        return None
    if hasattr(duration, "seconds"):
        return float(duration.seconds)
    try:
        return float(str(duration).removesuffix("s"))
    except ValueError:
        return None


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 7200 else f"{seconds / 3600:g} h"
