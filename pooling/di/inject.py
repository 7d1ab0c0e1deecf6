"""
`inject`, `Inject`, `task` and `part`: functions whose arguments come from a container.

A marker names a provider of a container *class* (or a key). The container is found at each call: the one that the
current request was opened on, else the one that is running. Nothing is patched, so containers do not affect each other,
and functions defined later are injected like any other.

For an async function, the pooled values it needs are awaited first; then its arguments are resolved without suspending.
So providers stay synchronous, and a cancellation arrives at one `await` here rather than in a graph of futures.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, overload

from .._request.current import get_current
from ..binding import is_provider
from ..context import RequestContext
from ..errors import ConfigurationError, RequestContextError
from ._lookup import the_running
from ._markers import Marker, markers_of, plan_of, without_marked
from ._plan import PENDING, Plan

if TYPE_CHECKING:
    from dependency_injector import containers, providers

    from .._request.answer import Release

__all__ = ["Inject", "Spec", "inject", "part", "specs", "task"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class _MakesMarkers:
    """
    `Inject`: `Inject[provider]` is typed as what the provider returns, so that it can be a default.

    In a web request, `Inject[provider, "handler"]` gives the pooled values it needs back when the handler has returned,
    before the response goes out; see `pooling.web.asgi.RequestContextMiddleware`.
    """

    @overload
    def __getitem__(self, target: providers.Provider[T] | tuple[providers.Provider[T], Release]) -> T: ...
    @overload
    def __getitem__(self, target: str | tuple[Any, str] | tuple[Any, str, Release]) -> Any: ...
    def __getitem__(self, target: Any) -> Any:
        if isinstance(target, tuple) and (isinstance(target[0], str) or is_provider(target[0])):
            return self(*target)
        if isinstance(target, tuple) and len(target) == 3:
            return self(target[:2], target[2])
        return self(target)

    @overload
    def __call__(self, target: providers.Provider[T], release: Release | None = None) -> Marker[T]: ...
    @overload
    def __call__(self, target: str | tuple[Any, str], release: Release | None = None) -> Marker[Any]: ...
    def __call__(self, target: Any, release: Release | None = None) -> Marker[Any]:
        if isinstance(target, tuple):
            owner, key = target
            return Marker(key, owner, release)
        return Marker(target, release=release)

    def __repr__(self) -> str:
        return "pooling.di.Inject"


Inject: Final = _MakesMarkers()


# --- the injected arguments of a function ----------------------------------------------------------------------------


class Entry(NamedTuple):
    """One injected argument: its name, its place among the positional ones, and its plan."""

    name: str
    place: int
    plan: Plan


class Spec:
    """The injected arguments of a function."""

    __slots__ = ("__weakref__", "_key", "_notes_releases", "function", "is_eager", "markers")

    def __init__(
        self, function: Callable[..., Any], markers: dict[str, tuple[int, Marker[Any]]], *, is_eager: bool
    ) -> None:
        self.function: Callable[..., Any] = function
        self.markers: dict[str, tuple[int, Marker[Any]]] = markers
        self.is_eager: bool = is_eager
        self._key = id(self)
        self._notes_releases = any(marker.release is not None for _, marker in markers.values())
        specs.add(self)

    def fill(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add the injected arguments to those of a call, except those that the caller has given."""
        given = len(args)
        ctx = get_current()
        for name, place, plan in self._entries(ctx):
            if given <= place and name not in kwargs:
                kwargs[name] = plan.resolve(ctx)
                if self._notes_releases:
                    plan.note_release(ctx, self.markers[name][1].release)

    async def afill(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """As `fill`, after awaiting all pooled values."""
        given = len(args)
        ctx = get_current()
        entries = self._entries(ctx)
        if self.is_eager:
            for name, place, plan in entries:
                if given <= place and name not in kwargs:
                    taking = plan.take(ctx)
                    if taking is not None:
                        await taking
        for name, place, plan in entries:
            if given <= place and name not in kwargs:
                value = plan.resolve(ctx)
                kwargs[name] = value if not isinstance(value, PENDING) else await value
                if self._notes_releases:
                    plan.note_release(ctx, self.markers[name][1].release)

    def _entries(self, ctx: RequestContext) -> tuple[Entry, ...]:
        """The injected arguments and their plans in this call's container."""
        try:
            return ctx.container.injection_plans[self._key][0]  # type: ignore[no-any-return]
        except (KeyError, AttributeError):  # the function's first call in this container, or no container
            return self._find_entries(ctx.container)

    def _find_entries(self, container: Any) -> tuple[Entry, ...]:
        where = f"{self.function.__module__}.{self.function.__qualname__}"
        answering = []
        entries = []
        for name, (place, marker) in self.markers.items():
            source, plan = plan_of(marker, f"{where}({name})")
            answering.append(source)
            entries.append(Entry(name, place, plan))
        found = tuple(entries)
        if container is not None and all(source is container for source in answering):
            # No other container is involved, so this is valid as long as this container and this function exist.
            plans, key = container.injection_plans, self._key
            plans[key] = found, weakref.ref(self, lambda _: plans.pop(key, None))
        return found


#: All injected functions, for the checks at start.
specs: weakref.WeakSet[Spec] = weakref.WeakSet()


# --- inject ----------------------------------------------------------------------------------------------------------


@overload
def inject(function: F, /) -> F: ...
@overload
def inject(*, eager: bool = True) -> Callable[[F], F]: ...
def inject(function: Any = None, /, *, eager: bool = True) -> Any:
    """
    Give a function its marked arguments from a container.

    For functions, coroutine functions, generators of both kinds and context managers made of them, methods and
    constructors. An argument that the caller passes is left alone, and nothing is taken from a pool for it. The
    decorated function's signature does not show the injected arguments, so frameworks do not look for them in requests.

    For an async function, the pooled values it needs are awaited first. A plain function takes them when its arguments
    are resolved, and blocks meanwhile.

    Args:
        function: What to decorate.
        eager: `False` does not await pooled values first. A value of an asyncio pool must then have been taken before,
            with `await provider.aget()`.

    Raises:
        ConfigurationError: No argument is marked, or an annotation that may have a marker cannot be evaluated.
    """
    if function is None:
        frame = sys._getframe(1)
        return lambda function: _inject(function, eager, frame)
    return _inject(function, eager, sys._getframe(1))


#: The decorators that make a context manager of a generator, by the code of the functions that they return.
_MANAGER_MAKERS: Final[dict[Any, Any]] = {}
for _make in (contextmanager, asynccontextmanager):
    _MANAGER_MAKERS[_make(len).__code__] = _make  # type: ignore[arg-type]


def _is_function(given: Any) -> bool:
    """Whether it is a function or method. Since Python 3.14 `inspect.isroutine` takes a `functools.partial` for one."""
    return inspect.isroutine(given) and not isinstance(given, functools.partial)


def _inject(function: Any, eager: bool, frame: Any) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_inject(function.__func__, eager, frame))
    remake = _MANAGER_MAKERS.get(getattr(function, "__code__", None))
    if remake is not None:  # what is injected is the generator below, when the manager is entered
        return remake(_inject(function.__wrapped__, eager, frame))
    if not _is_function(function):
        raise ConfigurationError(
            f"inject: expected a function or method, not {function!r}. Decorate the function that it calls.",
            field="inject",
        )
    spec = Spec(function, markers_of(function, frame), is_eager=eager)
    if inspect.isasyncgenfunction(function):
        wrapper: Any = _wrap_async_generator(function, spec)
    elif inspect.iscoroutinefunction(function):
        wrapper = _wrap_coroutine(function, spec)
    elif inspect.isgeneratorfunction(function):
        wrapper = _wrap_generator(function, spec)
    else:
        wrapper = _wrap_function(function, spec)
    functools.update_wrapper(wrapper, function)
    wrapper.__signature__ = without_marked(inspect.signature(function), spec.markers)
    wrapper.__annotations__ = {
        name: annotation for name, annotation in function.__annotations__.items() if name not in spec.markers
    }
    wrapper.__injected__ = spec
    return wrapper


def _wrap_function(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    fill = spec.fill

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        fill(args, kwargs)
        return function(*args, **kwargs)

    return wrapper


def _wrap_coroutine(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        await spec.afill(args, kwargs)
        return await function(*args, **kwargs)

    return wrapper


def _wrap_generator(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        spec.fill(args, kwargs)
        return (yield from function(*args, **kwargs))

    return wrapper


def _wrap_async_generator(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        await spec.afill(args, kwargs)
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
            except BaseException as error:  # noqa: BLE001 - passed on to the inner generator
                step = inner.athrow(error)
            else:
                step = inner.__anext__() if sent is None else inner.asend(sent)

    return wrapper


# --- task ------------------------------------------------------------------------------------------------------------


@overload  # first, since a container's class is callable, too
def task(
    container: type[containers.Container] | containers.Container | None = None,
    /,
    *,
    name: str | None = None,
    **values: Any,
) -> Callable[[F], F]: ...
@overload
def task(function: F, /) -> F: ...
def task(given: Any = None, /, *, name: str | None = None, **values: Any) -> Any:
    """
    Run each call of a function as a separate request: a worker's task, a scheduled job, a command.

    Pooled values are given back when the call ends; an error is passed to the release hooks. For functions,
    coroutine functions and methods. To inject arguments, put `inject` below it.

    Args:
        given: The container or its class; by default the container that is running at the time of the call.
        name: The request's name; by default the function's.
        values: The request's values.

    Raises:
        ConfigurationError: It is a generator function, whose body runs after the call has ended.
    """
    if _is_function(given) or isinstance(given, staticmethod | classmethod):
        return _as_task(given, None, None, {})
    return lambda function: _as_task(function, given, name, values)


def _as_task(function: Any, container: Any, name: str | None, values: dict[str, Any]) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_as_task(function.__func__, container, name, values))
    title = name or function.__qualname__

    def request() -> RequestContext:
        chosen = container if container is not None and not isinstance(container, type) else the_running(container)
        return chosen.request(title, **values)  # type: ignore[no-any-return]

    return _in_requests(function, request, "task", "with app.request(): ...")


def part(function: F) -> F:
    """
    Run each call of a function as a part of the current request that takes its own pooled values.

    For the messages of a websocket and the parts of a stream: the values go back when the call ends, so nothing is
    held, and no transaction is open, while the next message is waited for. Values such as the user are the request's.
    For functions, coroutine functions and methods. To inject arguments, put `inject` below it.

    Raises:
        ConfigurationError: It is a generator function, whose body runs after the call has ended.
        RequestContextError: At a call: no request is open.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(part(function.__func__))
    title = function.__qualname__

    def request() -> RequestContext:
        ctx = RequestContext.current()
        if ctx is None:
            raise RequestContextError(
                f"{title} is a part of a request, and no request is open here: call it inside `with app.request():` or "
                "a web middleware of pooling.web; work that belongs to no request is a pooling.di.task"
            )
        return ctx.child(own=True)

    return _in_requests(function, request, "part", "with RequestContext.current().child(own=True): ...")  # type: ignore[no-any-return]


def _in_requests(function: Any, request: Callable[[], RequestContext], kind: str, instead: str) -> Any:
    """Wrap a function so that each call runs in the request that `request()` returns, and ends it."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{kind}: {function.__qualname__} is a generator function, whose body runs after the call has ended, and "
            f"so outside of its request. Open the request where it is iterated over: {instead}",
            field=kind,
        )

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            async with request():
                return await function(*args, **kwargs)

        return arun

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with request():
            return function(*args, **kwargs)

    return run
