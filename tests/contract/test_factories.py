"""The forms a factory may have, and which hook serves which step."""

from __future__ import annotations

import functools

import pytest

from pooling import (
    AsyncPoolingService,
    ConfigurationError,
    Poolable,
    PoolFactory,
    PoolingError,
    PoolingService,
    PoolTimeoutError,
    ReleaseError,
)
from tests.contract.harness import on_asyncio, on_both, on_threads, raising


class Thing:
    pass


class Counted(PoolFactory):
    def __init__(self):
        self.log = []

    def create(self):
        self.log.append("create")
        return Thing()

    def destroy(self, value):
        self.log.append("destroy")

    def validate(self, value):
        self.log.append("validate")
        return True

    def acquire(self, value, request_ctx):
        self.log.append(("acquire", request_ctx))

    def release(self, value, exc=None):
        self.log.append(("release", type(exc).__name__))


def make():
    return Thing()


class Duck:
    """Not a `PoolFactory`, but has `create`."""

    def create(self):
        return Thing()


@pytest.mark.parametrize(
    "factory",
    [
        Counted(),
        PoolFactory.of(Thing),
        PoolFactory.of(make),
        Thing,
        make,
        lambda: Thing(),
        functools.partial(Thing),
        Duck(),
    ],
    ids=["a subclass", "of a class", "of a function", "a class", "a function", "a lambda", "a partial", "a duck"],
)
@on_both
async def test_whatever_makes_resources_is_a_factory(side, factory):
    pool = side.pool(factory, max_size=1)
    async with pool.lease() as value:
        assert isinstance(value, Thing)


@pytest.mark.parametrize("factory", [None, 7, "create", [Thing]])
@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService])
def test_what_makes_no_resources_is_refused(kind, factory):
    with raising(ConfigurationError, "factory=") as caught:
        kind(factory)
    assert caught.value.field == "factory"


@pytest.mark.parametrize("kind", [PoolingService, AsyncPoolingService])
def test_a_factorys_class_instead_of_a_factory_is_refused_with_what_to_write(kind):
    with raising(ConfigurationError, "Counted()"):
        kind(Counted)


@pytest.mark.parametrize("name", ["create", "destroy", "validate", "acquire", "release", "is_alive", "is_final"])
def test_a_hook_that_cannot_be_called_is_refused_by_its_name(name):
    hooks = {"create": Thing, name: 7}
    with raising(ConfigurationError, f"{name}=7") as caught:
        PoolFactory.of(**hooks)
    assert caught.value.field == name


@on_both
async def test_each_step_runs_its_hook_in_order(side):
    factory = Counted()
    pool = side.pool(factory, max_size=1, validate_on_acquire=True, validate_on_release=True)
    async with pool.lease("a request"):
        pass
    with pytest.raises(KeyError):
        async with pool.lease("another"):
            raise KeyError
    await pool.stop(20)
    assert factory.log == [
        "create",
        *("validate", ("acquire", "a request"), ("release", "NoneType"), "validate"),
        *("validate", ("acquire", "another"), ("release", "KeyError"), "validate"),
        "destroy",
    ]


@on_both
async def test_an_acquire_hook_gets_the_pools_context_where_the_borrower_gives_none(side):
    seen = []
    factory = PoolFactory.of(Thing, acquire=lambda value, ctx: seen.append(ctx))
    pool = side.pool(factory, context="the pool's own")
    for ctx in (None, "mine", 0):
        value = await (pool.acquire() if ctx is None else pool.acquire(ctx))
        await pool.release(value)
    assert seen == ["the pool's own", "mine", 0]


@on_both
async def test_hooks_that_were_not_written_leave_the_fast_path(side):
    pool = side.pool(PoolFactory.of(Thing, destroy=lambda value: None))
    value = await pool.acquire()
    await pool.release(value)
    if side.name == "asyncio":
        # Nothing to wait for: neither of the two suspends.
        with pytest.raises(StopIteration) as stop:
            pool.service.acquire().send(None)
        with pytest.raises(StopIteration):
            pool.service.release(stop.value.value).send(None)
    assert pool.available == 1


# -- hooks of the resource ---------------------------------------------------------------


class SelfMade:
    """Looks after itself."""

    def __init__(self):
        self.log = []

    def start(self):
        self.log.append("start")

    def acquire(self, request_ctx):
        self.log.append(("acquire", request_ctx))

    def release(self):
        self.log.append("release")

    def stop(self):
        self.log.append("stop")

    def destroy(self):
        self.log.append("destroy")


@on_both
async def test_a_resource_may_bring_its_own_hooks(side):
    assert isinstance(SelfMade(), Poolable)
    pool = side.pool(SelfMade, max_size=1)
    for _ in range(2):
        async with pool.lease("ctx") as value:
            pass
    await pool.stop(20)
    assert value.log == ["start", *(("acquire", "ctx"), "release") * 2, "stop", "destroy"]


@on_both
async def test_the_factorys_hooks_win_over_the_resources(side):
    seen = []
    factory = PoolFactory.of(
        SelfMade,
        acquire=lambda value, ctx: seen.append("acquire"),
        release=lambda value: seen.append("release"),
        destroy=lambda value: seen.append("destroy"),
    )
    pool = side.pool(factory, max_size=1)
    async with pool.lease() as value:
        pass
    await pool.stop(20)
    assert seen == ["acquire", "release", "destroy"]
    assert value.log == ["start", "stop"], "these two have no twin in the factory"


@on_both
async def test_a_resource_that_does_not_start_counts_as_a_failed_create_and_is_destroyed(side):
    made = []

    class Stillborn(SelfMade):
        def __init__(self):
            super().__init__()
            made.append(self)

        def start(self):
            if len(made) < 3:
                raise OSError("port in use")
            super().start()

    pool = side.pool(Stillborn, max_size=1, create_backoff=0.001)
    async with pool.lease() as value:
        assert value is made[2]
    await side.until(lambda: [thing.log[-1:] for thing in made[:2]] == [["destroy"]] * 2)
    stats = pool.stats()
    assert stats.create_failures == 2
    assert stats.destroyed_by == {"start failed": 2}


@on_both
async def test_a_stop_that_raises_does_not_keep_destroy_from_running(side, caplog):
    class Stubborn(SelfMade):
        def stop(self):
            raise OSError

    pool = side.pool(Stubborn, max_size=1)
    async with pool.lease() as value:
        pass
    await pool.stop(20)
    assert value.log[-1] == "destroy"
    assert "failed with OSError" in caplog.text


@on_both
async def test_resources_of_several_types_each_bring_their_own_hooks(side):
    kinds = [Thing, SelfMade, Thing]
    factory = PoolFactory.of(lambda: kinds.pop(0)())
    pool = side.pool(factory, max_size=3)
    held = [await pool.acquire() for _ in range(3)]
    for value in held:
        await pool.release(value)
    (self_made,) = [value for value in held if isinstance(value, SelfMade)]
    assert self_made.log == ["start", ("acquire", None), "release"]


# -- exceptions told to the release hook ----------------------------------------------------


@on_both
async def test_a_release_hook_that_wants_it_gets_the_exception_that_ended_the_use(side):
    seen = []

    async def release(value, exc):
        seen.append(exc)

    factory = PoolFactory.of(Thing, release=side.hook(release))
    pool = side.pool(factory)
    failure = ValueError("half done")
    with pytest.raises(ValueError, match="half done"):
        async with pool.lease():
            raise failure
    async with pool.lease():
        pass
    value = await pool.acquire()
    await pool.release(value, failure)
    assert seen == [failure, None, failure]


@on_both
async def test_an_error_of_the_block_is_not_hidden_by_one_of_the_release_hook(side, caplog):
    def release(value):
        raise OSError("gone")

    pool = side.pool(PoolFactory.of(Thing, release=release), name="orders")
    with pytest.raises(ValueError, match="the block's own"):
        async with pool.lease():
            raise ValueError("the block's own")
    assert "pool 'orders'" in caplog.text
    assert "OSError" in caplog.text
    with pytest.raises(ReleaseError):
        async with pool.lease():
            pass


# -- plain and coroutine hooks ------------------------------------------------------------------


async def coroutine_hook(*_):
    return True


class CallsCoroutine:
    async def __call__(self, *_):
        return True


HOOKS = ("create", "destroy", "validate", "acquire", "release")


@pytest.mark.parametrize("name", [*HOOKS, "is_alive"])
@pytest.mark.parametrize(
    "hook",
    [coroutine_hook, functools.partial(coroutine_hook), CallsCoroutine(), CallsCoroutine().__call__],
    ids=["a function", "a partial", "an object", "a method"],
)
def test_a_pool_for_threads_refuses_coroutine_hooks_at_construction(name, hook):
    factory = PoolFactory.of(Thing)
    setattr(factory, name, hook)
    with raising(
        ConfigurationError, "pool 'orders'", f"{name} is a coroutine function", "AsyncPoolingService"
    ) as caught:
        PoolingService(factory, name="orders")
    assert caught.value.field == name


def test_a_pool_for_threads_refuses_a_subclass_with_a_coroutine_hook():
    class Modern(Counted):
        async def release(self, value):
            pass

    with raising(ConfigurationError, "release is a coroutine function"):
        PoolingService(Modern())


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "coroutines"])
@on_asyncio
async def test_a_pool_of_asyncio_takes_plain_and_coroutine_hooks(side, plain):
    log = []

    def hook_of(name):
        def hook(*_):
            log.append(name)
            return Thing() if name == "create" else True

        async def coroutine(*_):
            await side.turn()
            return hook()

        return hook if plain else coroutine

    pool = side.pool(PoolFactory.of(**{name: hook_of(name) for name in HOOKS}), validate_on_acquire=True)
    async with pool.lease() as value:
        assert isinstance(value, Thing)
    await pool.stop(20)
    assert log == ["create", "validate", "acquire", "release", "destroy"]


@on_asyncio
async def test_coroutine_methods_of_a_resource_are_awaited(side):
    class Modern:
        def __init__(self):
            self.log = []

        async def start(self):
            self.log.append("start")

        async def acquire(self, request_ctx):
            self.log.append("acquire")

        async def release(self):
            self.log.append("release")

        async def stop(self):
            self.log.append("stop")

        async def destroy(self):
            self.log.append("destroy")

    pool = side.pool(Modern, max_size=1)
    async with pool.lease() as value:
        pass
    await pool.stop(20)
    assert value.log == ["start", "acquire", "release", "stop", "destroy"]


# -- is_alive and is_final -------------------------------------------------------------------------


@on_both
async def test_an_is_alive_that_raises_says_no(side):
    def is_alive(value):
        raise OSError

    pool = side.pool(PoolFactory.of(Thing, is_alive=is_alive), max_size=1)
    with pytest.raises(PoolTimeoutError):
        async with pool.lease(timeout=0.2):
            pass
    assert pool.stats().created <= 6, "the pause grows, as for creates that fail"


@on_both
async def test_an_is_final_that_raises_is_logged_and_the_create_tried_again(side, caplog):
    failures = [OSError("one")]

    def create():
        if failures:
            raise failures.pop()
        return Thing()

    def is_final(error):
        raise ZeroDivisionError

    pool = side.pool(PoolFactory.of(create, is_final=is_final), create_backoff=0.001)
    async with pool.lease():
        pass
    assert "is_final() failed" in caplog.text


async def later(*_):
    return True


@pytest.mark.parametrize("name", HOOKS)
@on_threads
async def test_a_coroutine_that_a_plain_hook_returns_is_not_taken_for_a_result(side, name):
    # Seen only when it runs: a coroutine object is as true as can be.
    hooks = {"create": Thing, name: lambda *_: later()}
    pool = side.pool(PoolFactory.of(**hooks), validate_on_acquire=True, timeout=0.3)
    texts = []
    try:
        async with pool.lease():
            pass
    except (PoolingError, TypeError) as error:
        texts.append(f"{error} {error.__cause__}")
    if name != "destroy":  # that one is in the log
        assert "returned a coroutine" in texts[0]
    assert pool.borrowed == 0


@on_both
async def test_a_factory_without_create_is_refused_at_construction(side):
    class Forgetful(PoolFactory):
        def destroy(self, value):
            pass

    for factory in (Forgetful(), PoolFactory()):
        with pytest.raises(ConfigurationError, match=r"must define create\(\)"):
            side.pool(factory)


@on_both
async def test_a_resources_own_start_runs_only_where_the_pool_makes_the_resource(side):
    log = []

    async def start(self):
        log.append("start")

    async def stop(self):
        log.append("stop")

    Service = type("Service", (), {"start": side.hook(start), "stop": side.hook(stop)})

    class Ready(PoolFactory):
        def create(self):
            return Service()

    class ReadyOnceStarted(Ready):
        starts_resources = True

    class Duck:
        def create(self):
            return Service()

    for factory, expected in [
        (Service, ["start", "stop"]),
        (lambda: Service(), ["start", "stop"]),
        (PoolFactory.of(Service), ["start", "stop"]),
        (Ready(), ["stop"]),
        (Duck(), ["stop"]),
        (ReadyOnceStarted(), ["start", "stop"]),
    ]:
        log.clear()
        pool = side.pool(factory)
        await pool.destroy(await pool.acquire())
        assert log == expected
