"""What is counted of logins, mints and rotations, by the names that exporters show."""

from __future__ import annotations

from pooling import telemetry

__all__ = ["LOGIN", "MINT", "POOL_NAME", "ROTATIONS"]

LOGIN, MINT, ROTATIONS = "lakebase.login", "lakebase.mint", "lakebase.rotations"
POOL_NAME, _ERROR = "pooling.pool.name", "error.type"


def _describe() -> None:
    for name, what, unit, attributes in (
        (LOGIN, "Logins to the server", "{login}", (POOL_NAME,)),
        (MINT, "Passwords minted or fetched", "{mint}", ()),
    ):
        telemetry.describe(f"{name}s", "counter", unit, f"{what}.", attributes)
        telemetry.describe(f"{name}_failures", "counter", unit, f"{what}: failed attempts.", (*attributes, _ERROR))
        telemetry.describe(f"{name}.duration", "histogram", "s", f"{what}: time taken.", (*attributes, _ERROR))
    telemetry.describe(ROTATIONS, "counter", "{rotation}", "Further tokens of users who had a session.", (POOL_NAME,))


_describe()
