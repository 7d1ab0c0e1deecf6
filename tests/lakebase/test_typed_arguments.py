"""The typed keywords that editors check are the arguments that exist."""

from __future__ import annotations

import inspect
from dataclasses import fields

from lakebase import LakebasePool, LakebasePoolConfig, LakebasePoolManager
from lakebase._pool_arguments import EngineOptions, PoolArguments, ServiceArguments, SharedArguments
from lakebase._settings import SettingsDict
from pooling import PoolingService, PoolingServiceOptions

OPTIONS = {field.name for field in fields(PoolingServiceOptions)}


def named(function: object) -> set[str]:
    """The names of a function's keyword-only parameters."""
    return {name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY}


def test_the_settings_are_the_fields_of_the_configuration_with_their_types():
    typed = {name: getattr(kind, "__forward_arg__", kind) for name, kind in SettingsDict.__annotations__.items()}
    assert typed == {field.name: field.type for field in fields(LakebasePoolConfig) if field.init}


def test_a_pool_takes_every_option_of_the_engine_once():
    of_the_pool = named(LakebasePool.__init__)
    assert not of_the_pool & set(ServiceArguments.__annotations__)
    assert of_the_pool | set(EngineOptions.__annotations__) >= OPTIONS
    assert set(EngineOptions.__annotations__) < OPTIONS
    assert set(ServiceArguments.__annotations__) - OPTIONS <= named(PoolingService.__init__)


def test_what_is_passed_to_a_pool_by_name_is_an_argument_of_it():
    known = named(LakebasePool.__init__) | set(ServiceArguments.__annotations__)
    assert set(PoolArguments.__annotations__) <= known
    assert set(SharedArguments.__annotations__) <= known
    assert not set(SharedArguments.__annotations__) & named(LakebasePoolManager.__init__)
