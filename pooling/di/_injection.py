"""
`inject` and `Inject`: functions whose arguments come from a container.

The marker names a provider of a container *class* (or one of its keys); which container answers is found at
the call: the one the current request was opened on, else the one that is running. Nothing is patched, so containers do
not get into each other's way and functions defined later are injected like any other.

An async function has the pooled values it needs awaited first, and its arguments resolved after that without
suspending. So the providers stay synchronous, and a cancellation hits one await of ours rather than a graph of futures.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections import ChainMap
from collections.abc import AsyncGenerator, Callable, Generator
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    overload,
)

from .._request.current import current_var
from ..binding import is_provider
from ..context import RequestContext
from ..errors import ConfigurationError
from ._active import container_for
from ._graph import PENDING, Reach

if TYPE_CHECKING:
    from dependency_injector import providers

__all__ = ["Inject", "Marker", "Spec", "inject", "specs"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_get_current = current_var.get


class Marker:
    """
    Stands for an argument to be injected: `= Inject[App.repo]`, or `Annotated[Repo, Inject(App.repo)]`.

    Called, it gives a coroutine of the value: FastAPI takes it as `Depends(Inject[App.repo])`, without a
    thread of its pool.
    """

    __slots__ = ("owner", "target")

    def __init__(self, target: Any, owner: Any = None) -> None:
        if not isinstance(target, str) and not is_provider(target):
            raise ConfigurationError(
                f"Inject({target!r}): expected a provider of a container class, such as Inject[App.repo], or a key "
                "such as "
                'Inject["services.audit"]',
                field="Inject",
            )
        self.target = target
        self.owner = owner

    async def __call__(self) -> Any:
        ctx = RequestContext.current()
        container = None if ctx is None else ctx.container
        known = None if container is None else container._plans.get(self)
        if known is None:
            source, known = _reach_of(self, repr(self))
            if container is not None and source is container:
                container._plans[self] = known
        return await known.aresolve(_get_current())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Marker):
            return NotImplemented
        if isinstance(self.target, str) or isinstance(other.target, str):
            return self.target == other.target and self.owner is other.owner
        return self.target is other.target

    def __hash__(self) -> int:
        return hash(self.target) if isinstance(self.target, str) else id(self.target)

    def __getattr__(self, name: str) -> Any:
        # Whoever reads an attribute that the wanted service would have holds the marker by mistake.
        raise AttributeError(
            f"{self!r} has no attribute {name!r}: this is the marker itself, not the service; decorate the function "
            "with "
            "@pooling.di.inject, below any decorator that registers it"
        )

    def __repr__(self) -> str:
        return f"Inject[{self.target!r}]"


class _MakesMarkers:
    """`Inject`: `Inject[provider]` is typed as what the provider gives, so it can stand as a default."""

    @overload
    def __getitem__(self, target: providers.Provider[T]) -> T: ...
    @overload
    def __getitem__(self, target: str | tuple[Any, str]) -> Any: ...
    def __getitem__(self, target: Any) -> Any:
        if isinstance(target, tuple):
            owner, key = target
            return Marker(key, owner)
        return Marker(target)

    def __call__(self, target: Any) -> Marker:
        return cast("Marker", self[target])

    def __repr__(self) -> str:
        return "pooling.di.Inject"


Inject: Final = _MakesMarkers()


class Entry(NamedTuple):
    """One argument: its name, its place among the positional ones, and where it comes from."""

    name: str
    place: int
    reach: Reach


class Spec:
    """What a function wants injected."""

    __slots__ = ("__weakref__", "_key", "function", "is_eager", "markers")

    def __init__(self, function: Callable[..., Any], markers: dict[str, tuple[int, Marker]], *, is_eager: bool) -> None:
        self.function = function
        self.markers = markers
        self.is_eager = is_eager
        self._key = id(self)
        specs.add(self)

    def plan(self, ctx: RequestContext) -> tuple[Entry, ...]:
        """Where the arguments come from in this call."""
        try:
            return ctx.container._plans[self._key][0]  # type: ignore[no-any-return]
        except (KeyError, AttributeError):  # its first call there, or no container
            return self._make_plan(ctx.container)

    def _make_plan(self, container: Any) -> tuple[Entry, ...]:
        where = f"{self.function.__module__}.{self.function.__qualname__}"
        answering = []
        entries = []
        for name, (place, marker) in self.markers.items():
            source, reach = _reach_of(marker, f"{where}({name})")
            answering.append(source)
            entries.append(Entry(name, place, reach))
        plan = tuple(entries)
        if container is not None and all(source is container for source in answering):
            # Nobody else had a part in it: it holds as long as this container and this function do.
            plans, key = container._plans, self._key
            plans[key] = plan, weakref.ref(self, lambda _: plans.pop(key, None))
        return plan


#: Every injected function there is, for checks at start.
specs: weakref.WeakSet[Spec] = weakref.WeakSet()


def _reach_of(marker: Marker, where: str) -> tuple[Any, Reach]:
    """The container that answers, and its provider; no container for a provider that belongs to no class."""
    target = marker.target
    container = container_for(target, marker.owner, where)
    if container is None:
        return None, Reach(target)
    return container, container.reach(target)


@overload
def inject(function: F, /) -> F: ...
@overload
def inject(*, eager: bool = True) -> Callable[[F], F]: ...
def inject(function: Any = None, /, *, eager: bool = True) -> Any:
    """
    Give a function its marked arguments from a container.

    For functions, coroutine functions, generators of both kinds, methods and constructors.
    What the caller passes itself is left alone, and nothing is taken from a pool for it. The decorated function's
    signature no longer shows the injected arguments, so frameworks do not look for them in requests.

    An async function has the pooled values it needs awaited first; a plain one takes them as its arguments are
    resolved, and blocks while it waits.

    Args:
        function: What to decorate.
        eager: `False` leaves out the awaiting. A pooled value of an asyncio pool must then have been taken before,
            with `await slot.aget()`.

    Raises:
        ConfigurationError: Nothing is marked, or an annotation that may hold a marker cannot be evaluated.
    """
    if function is None:
        frame = sys._getframe(1)
        return lambda function: _inject(function, eager, frame)
    return _inject(function, eager, sys._getframe(1))


def _inject(function: Any, eager: bool, frame: Any) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_inject(function.__func__, eager, frame))
    if not inspect.isroutine(function):
        raise ConfigurationError(
            f"inject: expected a function or method, not {function!r}. Decorate the function that it calls.",
            field="inject",
        )
    spec = Spec(function, _markers_of(function, frame), is_eager=eager)
    if inspect.isasyncgenfunction(function):
        wrapper: Any = _wrap_async_generator(function, spec)
    elif inspect.iscoroutinefunction(function):
        wrapper = _wrap_coroutine(function, spec)
    elif inspect.isgeneratorfunction(function):
        wrapper = _wrap_generator(function, spec)
    else:
        wrapper = _wrap_function(function, spec)
    functools.update_wrapper(wrapper, function)
    wrapper.__signature__ = _visible(inspect.signature(function), spec)
    wrapper.__annotations__ = {
        name: annotation for name, annotation in function.__annotations__.items() if name not in spec.markers
    }
    wrapper.__injected__ = spec
    return wrapper


def _wrap_function(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = len(args)
        ctx = _get_current()
        for name, place, reach in spec.plan(ctx):
            if given <= place and name not in kwargs:
                kwargs[name] = reach.resolve(ctx)
        return function(*args, **kwargs)

    return wrapper


def _wrap_coroutine(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    is_eager = spec.is_eager

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = len(args)
        ctx = _get_current()
        entries = spec.plan(ctx)
        if is_eager:
            for name, place, reach in entries:
                if given <= place and name not in kwargs:
                    for slot in reach.slots():  # `Reach.take`, without a coroutine of its own
                        taking = slot.begin(ctx)
                        if taking is not None:
                            await taking
        for name, place, reach in entries:
            if given <= place and name not in kwargs:
                value = reach.resolve(ctx)
                kwargs[name] = value if not isinstance(value, PENDING) else await value
        return await function(*args, **kwargs)

    return wrapper


async def _fill(spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = len(args)
    ctx = _get_current()
    wanted = [entry for entry in spec.plan(ctx) if given <= entry.place and entry.name not in kwargs]
    if spec.is_eager:
        for entry in wanted:
            await entry.reach.take(ctx)
    for entry in wanted:
        value = entry.reach.resolve(ctx)
        kwargs[entry.name] = value if not isinstance(value, PENDING) else await value


def _wrap_generator(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        given = len(args)
        ctx = _get_current()
        for entry in spec.plan(ctx):
            if given <= entry.place and entry.name not in kwargs:
                kwargs[entry.name] = entry.reach.resolve(ctx)
        return (yield from function(*args, **kwargs))

    return wrapper


def _wrap_async_generator(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        await _fill(spec, args, kwargs)
        inner = function(*args, **kwargs)
        step = inner.__anext__()
        while True:
            try:
                item = await step
            except StopAsyncIteration:
                return
            try:
                sent = yield item
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - the inner generator is to see whatever is thrown in
                step = inner.athrow(error)
            else:
                step = inner.__anext__() if sent is None else inner.asend(sent)

    return wrapper


# --- finding the markers ---------------------------------------------------------------------------------------------


def _markers_of(function: Callable[..., Any], frame: Any) -> dict[str, tuple[int, Marker]]:
    parameters = inspect.signature(function).parameters
    found: dict[str, tuple[int, Marker]] = {}
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
    """How many positional arguments leave this one out; no number of them gives one that must be named."""
    return sys.maxsize if parameter.kind is parameter.KEYWORD_ONLY else place


def _marker_in(annotation: Any) -> Marker | None:
    """The marker of an annotation, or of a part of it: `Annotated[Repo, Inject(App.repo)] | None` has one, too."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return next((part for part in parts[1:] if isinstance(part, Marker)), None) or _marker_in(parts[0])
    if kind is Union or kind is UnionType:
        return next(filter(None, map(_marker_in, parts)), None)
    return None


def _evaluated(function: Callable[..., Any], name: str, annotation: Any, frame: Any) -> Any:
    """An annotation as an object; text is evaluated where the function is defined."""
    if not isinstance(annotation, str):
        return annotation
    globals_ = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, globals_, _names_around(frame, globals_))  # noqa: S307 - the function's own annotation
    except Exception as error:
        if "Inject" in annotation or "Annotated" in annotation:
            raise ConfigurationError(
                f"{function.__qualname__}: the annotation {annotation!r} of {name} cannot be evaluated ({error}), so "
                "its "
                "marker would never be seen; import its names at run time, or write = Inject[...] as a default",
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


# --- the signature that callers see ----------------------------------------------------------------------------------


def _visible(signature: inspect.Signature, spec: Spec) -> inspect.Signature:
    """The signature without what is injected; what stood after that, and could be given by position, must be named."""
    kept: list[inspect.Parameter] = []
    by_name = False
    for name, parameter in signature.parameters.items():
        if name in spec.markers:
            by_name = True
        elif by_name and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            kept.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        else:
            kept.append(parameter)
    return signature.replace(parameters=sorted(kept, key=lambda parameter: parameter.kind))
