"""The package's public names: each is where it is documented, and is imported only when it is used."""

from __future__ import annotations

import importlib

import pytest

import lakebase


def test_every_public_name_has_a_home_and_every_home_is_public() -> None:
    assert sorted(lakebase._HOME) == sorted(lakebase.__all__)
    assert len(set(lakebase.__all__)) == len(lakebase.__all__)


@pytest.mark.parametrize("name", lakebase.__all__)
def test_a_public_name_is_the_one_of_its_module(name: str) -> None:
    home = importlib.import_module(f"lakebase.{lakebase._HOME[name]}")
    assert getattr(lakebase, name) is getattr(home, name)
    assert name in dir(lakebase)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        lakebase.no_such_name  # noqa: B018
