"""How many connections are wanted, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..limits import PROVISIONED_CONNECTIONS, direct_connections, over_limit, smallest_compute
from .facts import Facts, skipped
from .finding import Finding, Fix, Verdict
from .shell import update_endpoint
from .statements import as_sql, connection_limit

if TYPE_CHECKING:
    from ..config import LakebasePoolConfig

__all__ = ["check_limits"]

_LIMITS = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
       + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int,
       -- The kind of another role's session is not shown to all; a worker of the server has no role.
       (SELECT count(*) FROM pg_stat_activity
        WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usename IS NOT NULL)
"""
_NAME = "limits"
#: CU between the ends of a range, at most: https://docs.databricks.com/aws/en/oltp/projects/manage-computes
_WIDEST = 16


@dataclass(frozen=True, slots=True)
class _Demand:
    """The connections that are wanted, and the size of the compute if it is known."""

    budget: int
    processes: int
    units: float | None

    @property
    def total(self) -> int:
        return self.budget * self.processes


def check_limits(facts: Facts) -> Finding:
    """The budget of all processes against what the compute takes, what the server takes now, and the role's own."""
    config = facts.resolved
    if config is None:
        return skipped(_NAME, "configuration")
    demand = _Demand(
        config.max_size if facts.asked.budget is None else facts.asked.budget,
        # With a store, the budget is the limit of all processes together.
        1 if facts.asked.store else facts.processes,
        config.compute_units or (facts.hosts.max_compute_units if facts.hosts else None),
    )
    reason = over_limit(
        demand.budget,
        compute_units=demand.units,
        replicas=demand.processes,
        pooled=config.pooled,
        provisioned=config.instance_name is not None,
    )
    if reason is not None:
        return Finding(_NAME, Verdict.WARNING, reason, fixes=_fixes(config, demand))
    if facts.connection is not None and not config.pooled:
        most, reserved, used = facts.connection.execute(_LIMITS).fetchone()
        found = f"{_wanted(facts, demand)} of {most - reserved} that the server takes now, {used} in use"
        return _compared(facts, config, demand, most - reserved, found)
    if demand.units is not None:
        limit = direct_connections(demand.units)
        return _compared(facts, config, demand, limit, f"{_wanted(facts, demand)} of {limit} at {demand.units:g} CU")
    if facts.connection is None:
        return skipped(_NAME, "login")
    return Finding(_NAME, Verdict.SKIPPED, "the pooler's depend on the size of the compute, which is not known")


def _wanted(facts: Facts, demand: _Demand) -> str:
    budget, workers, replicas = demand.budget, facts.asked.workers, facts.config.replicas
    if facts.asked.store:
        return f"{budget} wanted, shared by {facts.processes} process{'es' * (facts.processes > 1)},"
    if workers > 1:
        return f"{replicas} replica{'s' * (replicas > 1)} x {workers} workers x {budget} = {demand.total} wanted"
    return f"{replicas} x {budget} wanted" if replicas > 1 else f"{budget} wanted"


def _compared(facts: Facts, config: LakebasePoolConfig, demand: _Demand, limit: int, found: str) -> Finding:
    own = None if facts.role is None else facts.role.connection_limit
    if own is not None and own < demand.total:
        fix = as_sql([connection_limit(str(config.user), demand.total)], "as a role that may create roles")
        found = f"{found}; the role itself may have {own}"
        return Finding(_NAME, Verdict.WARNING, found, "raise the role's own limit, or lower max_total=", (fix,))
    if config.pooled:
        return Finding(_NAME, Verdict.OK, found)
    if demand.total > limit:
        fewer = " run fewer processes," if demand.processes > 1 else ""
        advice = f"lower max_total= or max_size=,{fewer} enlarge the compute, or use the built-in pooler"
        return Finding(_NAME, Verdict.WARNING, found, advice, _fixes(config, demand))
    if demand.processes > 1 and demand.total + demand.budget * facts.asked.workers > limit:
        advice = "one limit that all processes share lets their number grow, and lets a busy one use what others do not"
        fixes = (_shared_budget(config, limit),)
        return Finding(_NAME, Verdict.NOTE, f"{found}: a further replica does not fit", advice, fixes)
    return Finding(_NAME, Verdict.OK, found)


def _fixes(config: LakebasePoolConfig, demand: _Demand) -> tuple[Fix, ...]:
    if config.pooled:
        return ()
    fixes = []
    if demand.processes > 1:
        limit = direct_connections(demand.units) if demand.units else None
        fixes.append(_shared_budget(config, PROVISIONED_CONNECTIONS if config.instance_name else limit))
    size, endpoint = smallest_compute(demand.total), config.endpoint or ""
    if size is not None and size != demand.units and "/endpoints/" in endpoint:
        spec = {"autoscaling_limit_max_cu": size}
        if size > _WIDEST:
            spec["autoscaling_limit_min_cu"] = size - _WIDEST
        takes = direct_connections(size)
        fixes.append(update_endpoint(endpoint, spec, f"to enlarge the compute, which then takes {takes}"))
    return tuple(fixes)


def _shared_budget(config: LakebasePoolConfig, limit: int | None) -> Fix:
    """One limit for all processes, a tenth below the server's: migrations and people connect too."""
    most = "LIMIT" if limit is None else str(max(1, limit * 9 // 10))
    store = 'RedisLeases("redis://HOST:6379/0")' if config.replicas > 1 else 'FileLeases("/var/lib/app/leases")'
    text = (
        "from pooling import SharedBudget\n"
        f"from pooling.leases import {store.partition('(')[0]}\n\n"
        f"budget = SharedBudget({most}, {store})\n"
        "manager = LakebasePoolManager(config, budget=budget)"
    )
    where = "to share one limit in place of a part for each process"
    if limit is not None:
        where += f"; the rest of the {limit} is for migrations and people"
    return Fix("python", text, where)
