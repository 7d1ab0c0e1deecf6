"""Markers of arguments to inject, and how they are found in defaults and annotations."""

from __future__ import annotations

import inspect
import sys
from collections import ChainMap
from collections.abc import Callable, Container
from types import UnionType
from typing import Annotated, Any, Generic, Self, TypeVar, Union, get_args, get_origin

from .._request.answer import RELEASES, Release
from .._request.current import get_current
from ..binding import is_provider
from ..context import RequestContext
from ..errors import ConfigurationError
from ._lookup import container_for
from ._plan import Plan, plan_for

__all__ = ["Marker", "markers_of", "plan_of", "without_marked"]

T = TypeVar("T")


_NOT_INJECTED = (
    "decorate the function with @pooling.di.inject, below any decorator that registers it; in FastAPI you may write "
    "pooling.web.fastapi.Injected[...] instead"
)


class Marker(Generic[T]):
    """
    Marks an argument to inject: `= Inject[App.repo]`, or `Annotated[Repo, Inject(App.repo)]`.

    Calling it returns a coroutine of the value, so FastAPI accepts `Depends(Inject(App.repo))` and runs it in the event
    loop.
    """

    __slots__ = ("owner", "release", "target")

    def __init__(self, target: Any, owner: Any = None, release: Release | None = None) -> None:
        if not isinstance(target, str) and not is_provider(target):
            raise ConfigurationError(
                f"Inject({target!r}): expected a provider of a container class, such as Inject[App.repo], or a key "
                'such as Inject["services.audit"]',
                field="Inject",
            )
        if release is not None and release not in RELEASES:
            raise ConfigurationError(
                f"Inject[..., {release!r}]: expected {', '.join(map(repr, RELEASES[:-1]))} or {RELEASES[-1]!r}, "
                "when the pooled values go back",
                field="release",
            )
        self.target: Any = target
        self.owner: Any = owner
        self.release: Release | None = release

    async def __call__(self) -> T:
        ctx = RequestContext.current()
        container = None if ctx is None else ctx.container
        plan = None if container is None else container.injection_plans.get(self)
        if plan is None:
            answering, plan = plan_of(self, repr(self))
            if container is not None and answering is container:
                container.injection_plans[self] = plan
        value: T = await plan.aresolve(get_current())
        if ctx is not None:
            plan.note_release(ctx, self.release)
        return value

    def without_release(self) -> Marker[T]:
        """The same marker without a mark when its pooled values go back."""
        return self if self.release is None else Marker(self.target, self.owner)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Marker):
            return NotImplemented
        if self.release != other.release:
            return False
        if isinstance(self.target, str) or isinstance(other.target, str):
            return self.target == other.target and self.owner is other.owner
        return self.target is other.target

    def __hash__(self) -> int:
        return hash(self.target) if isinstance(self.target, str) else id(self.target)

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # a framework copies the defaults of a handler that nothing injects

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        # A framework takes the argument for one that the client sends.
        raise ConfigurationError(f"{self!r} is taken for a parameter of the request: {_NOT_INJECTED}", field="Inject")

    def __getattr__(self, name: str) -> Any:
        # Code that reads another attribute was passed the marker instead of the service.
        if name in self.__slots__ or name.startswith("__"):  # it is being copied, or asked for a protocol
            raise AttributeError(name)
        raise AttributeError(
            f"{self!r} has no attribute {name!r}: this is the marker itself, not the service; {_NOT_INJECTED}"
        )

    def __repr__(self) -> str:
        return f"Inject[{self.target!r}]"


def plan_of(marker: Marker[Any], where: str) -> tuple[Any, Plan]:
    """The container that a marker refers to, and its plan; `None` for a provider that belongs to no container class."""
    target = marker.target
    container = container_for(target, marker.owner, where)
    if container is None:
        return None, Plan(target)
    return container, plan_for(container, target)


# --- in a function ---------------------------------------------------------------------------------------------------


def markers_of(function: Callable[..., Any], frame: Any) -> dict[str, tuple[int, Marker[Any]]]:
    """The markers of a function's arguments, each with the most positional arguments of a call that leave it out."""
    parameters = inspect.signature(function).parameters
    found: dict[str, tuple[int, Marker[Any]]] = {}
    for place, (name, parameter) in enumerate(parameters.items()):
        marker = parameter.default
        if not isinstance(marker, Marker):
            marker = _marker_in(_evaluated(function, name, parameter.annotation, frame))
        if marker is None:
            continue
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigurationError(
                f"{function.__qualname__}: {name} cannot be injected, as it cannot be passed by name", field=name
            )
        found[name] = (_place(place, parameter), marker)
    if not found:
        raise ConfigurationError(
            f"{function.__qualname__}: nothing is marked for injection; write = Inject[App.repo] as a default, or "
            "Annotated[Repo, Inject(App.repo)] as an annotation",
            field="inject",
        )
    return found


def _place(place: int, parameter: inspect.Parameter) -> int:
    """The most positional arguments that leave this one out; unlimited for a keyword-only argument."""
    return sys.maxsize if parameter.kind is parameter.KEYWORD_ONLY else place


def _marker_in(annotation: Any) -> Marker[Any] | None:
    """The marker in an annotation or in a part of it, as in `Annotated[Repo, Inject(App.repo)] | None`."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return next((part for part in parts[1:] if isinstance(part, Marker)), None) or _marker_in(parts[0])
    if kind is Union or kind is UnionType:
        return next(filter(None, map(_marker_in, parts)), None)
    return None


def _evaluated(function: Callable[..., Any], name: str, annotation: Any, frame: Any) -> Any:
    """An annotation as an object; a string is evaluated in the scope of the function's definition."""
    if not isinstance(annotation, str):
        return annotation
    globals_ = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, globals_, _names_around(frame, globals_))  # noqa: S307 - the function's own annotation
    except Exception as error:
        if "Inject" in annotation or "Annotated" in annotation:
            raise ConfigurationError(
                f"{function.__qualname__}: the annotation {annotation!r} of {name} cannot be evaluated ({error}), so "
                "its marker would never be seen; import its names at run time, or write = Inject[...] as a default",
                field=name,
            ) from error
        return None


def _names_around(frame: Any, globals_: dict[str, Any]) -> ChainMap[str, Any]:
    """Local names of the functions and classes around a definition, innermost first."""
    scopes: list[Any] = []
    while frame is not None and frame.f_globals is globals_ and frame.f_locals is not frame.f_globals:
        scopes.append(frame.f_locals)
        frame = frame.f_back
    return ChainMap(*scopes)


def without_marked(signature: inspect.Signature, marked: Container[str]) -> inspect.Signature:
    """The signature without injected arguments; positional arguments after an injected one become keyword-only."""
    kept: list[inspect.Parameter] = []
    by_name = False
    for name, parameter in signature.parameters.items():
        if name in marked:
            by_name = True
        elif by_name and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            kept.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        else:
            kept.append(parameter)
    return signature.replace(parameters=sorted(kept, key=lambda parameter: parameter.kind))
