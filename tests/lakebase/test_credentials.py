"""One password for all waiters: single flights, expiry, refresh, rejection, interrupts."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest

from lakebase import ConfigurationError, CredentialCache, CredentialError, DatabaseCredential, LakebasePoolConfig
from lakebase.credentials import credential_source
from lakebase.passwords import EXPIRY_MARGIN, AsyncCallablePassword, MintedPassword, StaticPassword
from pooling import SingleFlight

HOUR = 3600.0
LONG = 30.0


def expiring(token: str, seconds: float = HOUR) -> DatabaseCredential:
    return DatabaseCredential(token, datetime.now(UTC) + timedelta(seconds=seconds))


class Clock:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Mint:
    """A mint that counts, and waits at its gate while that is shut."""

    def __init__(self, life: float = HOUR) -> None:
        self.calls = 0
        self.life = life
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.most_at_once = 0
        self._at_once = 0

    def __call__(self) -> DatabaseCredential:
        self.calls += 1
        number = self.calls
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.entered.release()
        assert self.gate.wait(LONG)
        self._at_once -= 1
        if self.error is not None:
            raise self.error
        return expiring(f"token-{number}", self.life)

    @contextmanager
    def shut(self) -> Iterator[None]:
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.001)  # sleeps: polls for what another thread does, however long it takes


def waiting_threads(function: Callable[..., object]) -> int:
    code, count = function.__code__, 0
    for frame in list(sys._current_frames().values()):
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        count += frame is not None
    return count


def test_a_hundred_threads_share_one_mint() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    with ThreadPoolExecutor(100) as pool:
        with mint.shut():
            got = [pool.submit(source.password) for _ in range(100)]
            until(lambda: waiting_threads(SingleFlight.wait) == 100)
        assert {future.result(LONG) for future in got} == {"token-1"}
    assert (mint.calls, source.mints, mint.most_at_once) == (1, 1, 1)


async def test_a_thousand_tasks_share_one_mint_and_the_loop_runs_on() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    with mint.shut():
        tasks = [asyncio.create_task(source.apassword()) for _ in range(1000)]
        await asyncio.to_thread(mint.entered.acquire)
        await asyncio.sleep(0)  # the loop is free although the mint blocks
    assert set(await asyncio.gather(*tasks)) == {"token-1"}
    assert mint.calls == 1


async def test_tasks_and_threads_share_one_mint() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    with mint.shut():
        task = asyncio.create_task(source.apassword())
        thread = asyncio.create_task(asyncio.to_thread(source.password))
        await asyncio.to_thread(until, lambda: waiting_threads(SingleFlight.wait) == 1)
    assert await task == await thread == "token-1"
    assert mint.calls == 1


async def test_a_cancelled_first_caller_cancels_no_other_caller() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    with mint.shut():
        first, second = (asyncio.create_task(source.apassword()) for _ in range(2))
        await asyncio.to_thread(mint.entered.acquire)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert await second == "token-1"
    assert await source.apassword() == "token-1"
    assert mint.calls == 1


def test_a_caller_that_gives_up_leaves_the_mint_to_the_next() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    with mint.shut():
        with pytest.raises(CredentialError, match=r"within 0 s") as caught:
            source.password(timeout=0)
        assert caught.value.is_transient
    assert source.password() == "token-1"
    assert mint.calls == 1


def test_a_mint_that_never_ends_is_left_behind_for_a_new_one() -> None:
    stuck, clock, calls = threading.Event(), Clock(), 0

    def mint() -> DatabaseCredential:
        nonlocal calls
        calls += 1
        number = calls
        if number == 1:
            assert stuck.wait(LONG)
        return expiring(f"token-{number}")

    source = MintedPassword(mint, clock=clock, timeout=20.0)
    with pytest.raises(CredentialError):
        source.password(timeout=0)
    clock.now += 19
    with pytest.raises(CredentialError):
        source.password(timeout=0)
    assert calls == 1
    clock.now += 2
    assert source.password() == "token-2"
    stuck.set()
    until(lambda: source.mints == 2)
    assert source.password() == "token-2"
    assert calls == 2


async def test_the_loop_may_end_while_a_mint_is_under_way() -> None:
    mint = Mint()
    source = MintedPassword(mint)

    def one_loop() -> None:
        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await source.apassword()

        asyncio.run(give_up())

    with mint.shut():
        await asyncio.to_thread(one_loop)
    assert await source.apassword() == "token-1"
    assert mint.calls == 1


def test_a_token_is_used_until_the_margin_before_it_expires() -> None:
    mint, clock = Mint(), Clock()
    source = MintedPassword(mint, clock=clock, refresh_ahead=0.0)
    assert source.password() == "token-1"
    clock.now += HOUR - EXPIRY_MARGIN - 5
    assert source.password() == "token-1"
    clock.now += 10
    assert source.password() == "token-2"
    assert mint.calls == 2


def test_the_wall_clock_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mint, clock = Mint(), Clock()
    source = MintedPassword(mint, clock=clock)
    source.password()

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: timezone | None = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1)

    monkeypatch.setattr("lakebase._credential.datetime", Tomorrow)
    assert source.password() == "token-1"


def test_a_machine_whose_clock_is_behind_does_not_believe_in_long_lives() -> None:
    mint, clock = Mint(life=25 * HOUR), Clock()
    source = MintedPassword(mint, clock=clock, longest=HOUR, refresh_ahead=0.0)
    source.password()
    clock.now += HOUR - EXPIRY_MARGIN + 1
    assert source.password() == "token-2"


def test_a_token_that_arrives_expired_still_serves_its_waiters_and_doubts_the_clock(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mint = Mint(life=-HOUR)
    source = MintedPassword(mint)
    assert source.password() == "token-1"
    assert source.password() == "token-2"
    until(lambda: "is the clock right?" in caplog.text)
    assert "token-" not in caplog.text


def test_a_token_near_its_end_is_replaced_in_the_background() -> None:
    mint, clock = Mint(), Clock()
    source = MintedPassword(mint, clock=clock)
    source.password()
    mint.entered.acquire()
    clock.now += HOUR - EXPIRY_MARGIN - 100
    with mint.shut():
        assert source.password() == "token-1"
        assert mint.entered.acquire(timeout=LONG)
        assert source.password() == "token-1"
    until(lambda: source.mints == 2)
    assert source.password() == "token-2"
    assert mint.calls == 2


def test_a_failed_refresh_ahead_raises_no_error_and_is_not_repeated_at_once() -> None:
    mint, clock = Mint(), Clock()
    source = MintedPassword(mint, clock=clock)
    source.password()
    clock.now += HOUR - EXPIRY_MARGIN - 100
    mint.error = CredentialError("no")
    assert source.password() == "token-1"
    until(lambda: mint.calls == 2 and source._flight is None)
    assert source.password() == "token-1"
    assert mint.calls == 2
    clock.now += 31
    mint.error = None
    assert source.password() == "token-1"
    until(lambda: source.mints == 2)
    assert source.password() == "token-3"


def test_a_mint_that_began_before_a_rejection_is_not_waited_for() -> None:
    mint, clock = Mint(), Clock()
    source = MintedPassword(mint, clock=clock)
    rejected = source.password()
    mint.entered.acquire()
    clock.now += HOUR - EXPIRY_MARGIN - 100
    with mint.shut():
        assert source.password() == "token-1"  # and has the next one minted in the background
        assert mint.entered.acquire(timeout=LONG)
        source.invalidate(rejected)  # as when all of them were expired at once: the next one may be, too
        with ThreadPoolExecutor(1) as caller:
            asked = caller.submit(source.password, LONG)
            assert mint.entered.acquire(timeout=LONG)
            mint.gate.set()
            assert asked.result(LONG) == "token-3"
    until(lambda: source.mints == 3)
    assert source.password() == "token-3"


def test_of_many_rejected_logins_one_mints_anew() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    rejected = source.password()
    assert source.invalidate(rejected)
    assert source.password() == "token-2"
    assert source.invalidate(rejected)
    assert source.password() == "token-2"
    assert mint.calls == 2


def test_every_caller_gets_a_separate_error_with_the_cause() -> None:
    mint = Mint()
    mint.error = PermissionError("denied")
    source = MintedPassword(mint, name="vault")
    with ThreadPoolExecutor(8) as pool:
        with mint.shut():
            got = [pool.submit(source.password) for _ in range(8)]
            until(lambda: waiting_threads(SingleFlight.wait) == 8)
        errors = [future.exception(LONG) for future in got]
    assert mint.calls == 1
    assert len({id(error) for error in errors}) == 8
    for error in errors:
        assert isinstance(error, CredentialError)
        assert "vault" in str(error)
        assert error.__cause__ is mint.error
    mint.error = None
    assert source.password() == "token-2"


def test_failures_that_may_pass_are_tried_again_a_bounded_number_of_times() -> None:
    outcomes: list[Exception | None] = [CredentialError("busy", is_transient=True), None]
    calls = 0

    def mint() -> str:
        nonlocal calls
        calls += 1
        if outcomes and (error := outcomes.pop(0)) is not None:
            raise error
        return "good"

    assert MintedPassword(mint, attempts=2).password() == "good"
    outcomes[:] = [CredentialError("busy", is_transient=True)] * 9
    calls = 0
    with pytest.raises(CredentialError, match="busy"):
        MintedPassword(mint, attempts=2).password()
    assert calls == 2
    outcomes[:] = [CredentialError("denied")] * 9
    calls = 0
    with pytest.raises(CredentialError, match="denied"):
        MintedPassword(mint, attempts=2).password()
    assert calls == 1


def test_a_callables_string_is_asked_for_each_time() -> None:
    passwords = iter("abc")
    source = MintedPassword(lambda: next(passwords))
    assert [source.password() for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("wrong", [None, "", 5, b"x"])
def test_what_is_no_password_is_refused(wrong: object) -> None:
    with pytest.raises(CredentialError, match="expected a password"):
        MintedPassword(lambda: wrong).password()  # type: ignore[arg-type, return-value]


def test_a_lambda_around_an_async_function_is_told_apart() -> None:
    async def fetch() -> str:
        return "x"

    with pytest.raises(CredentialError, match="without a lambda"):
        MintedPassword(lambda: fetch()).password()  # type: ignore[arg-type, return-value]


async def test_an_async_callable_is_called_once_for_all_tasks() -> None:
    gate, calls = asyncio.Event(), 0

    async def fetch() -> str:
        nonlocal calls
        calls += 1
        await gate.wait()
        return f"p{calls}"

    source = AsyncCallablePassword(fetch)
    tasks = [asyncio.create_task(source.apassword()) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[0].cancel()
    gate.set()
    assert set(await asyncio.gather(*tasks[1:])) == {"p1"}
    assert tasks[0].cancelled()
    assert await source.apassword() == "p2"


async def test_an_async_callables_failures_are_credential_errors() -> None:
    async def fail() -> str:
        raise KeyError("vault")

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(CredentialError, match="KeyError") as caught:
        await AsyncCallablePassword(fail).apassword()
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(CredentialError, match=r"did not answer within 0\.01 s"):
        await AsyncCallablePassword(hang, timeout=0.01).apassword()


async def test_an_async_callables_credential_is_cached_until_it_is_rejected() -> None:
    calls = 0

    async def fetch() -> DatabaseCredential:
        nonlocal calls
        calls += 1
        return expiring(f"t{calls}")

    source = AsyncCallablePassword(fetch)
    assert [await source.apassword() for _ in range(3)] == ["t1", "t1", "t1"]
    assert source.invalidate("t1")
    assert await source.apassword() == "t2"


def test_an_async_callable_in_a_blocking_pool_is_refused_at_construction() -> None:
    async def fetch() -> str:
        return "x"

    class Fetcher:
        async def __call__(self) -> str:
            return "x"

    for call in (fetch, Fetcher()):
        config = LakebasePoolConfig(host="h", database="d", user="u", password=call)
        with pytest.raises(ConfigurationError, match="async"):
            credential_source(config)
        assert isinstance(credential_source(config, is_async=True), AsyncCallablePassword)


def test_a_static_password_is_not_worth_another_attempt() -> None:
    source = credential_source(LakebasePoolConfig(host="h", database="d", user="u", password="fixed"))
    assert isinstance(source, StaticPassword)
    assert source.password() == asyncio.run(source.apassword()) == "fixed"
    assert not source.invalidate("fixed")
    assert "fixed" not in repr(source)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_mint() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    with mint.shut(), ThreadPoolExecutor(1) as pool:
        parents = pool.submit(source.password)
        until(lambda: waiting_threads(SingleFlight.wait) == 1)
        child = os.fork()
        if child == 0:
            try:
                mint.gate = threading.Event()
                mint.gate.set()
                os._exit(0 if source.password(timeout=LONG) == "token-2" else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        mint.gate.set()
        assert parents.result(LONG) == "token-1"
    assert os.waitstatus_to_exitcode(status) == 0


def test_an_instant_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="time zone"):
        DatabaseCredential("t", datetime(2030, 1, 1))  # noqa: DTZ001


def test_no_rendering_shows_a_token() -> None:
    credential = expiring("s3cret-token")
    source = MintedPassword(lambda: credential, name="test")
    source.password()
    for shown in (repr(credential), str(credential), repr(source), str(vars(credential.expires_at.__class__))):
        assert "s3cret-token" not in shown


def test_identities_keep_their_source_and_different_ones_do_not_share_it() -> None:
    base = LakebasePoolConfig(host="h", database="d", endpoint="projects/p/branches/b/endpoints/e")
    cache = CredentialCache(max_entries=3)
    ann = cache.source(base.merged({"user": "ann", "token": "t-ann"}))
    assert cache.source(base.merged({"user": "ann", "token": "t-ann", "max_size": 3})) is ann
    others = [
        base.merged({"user": "ann", "token": "t-ann-rotated"}),
        base.merged({"user": "bob", "token": "t-ann"}),
        base.merged({"user": "ann", "token": "t-ann", "claims": [{"permission_set": "READ_ONLY"}]}),
    ]
    for other in others:
        assert cache.source(other) is not ann
    assert len(cache) == 3
    assert cache.source(base.merged({"user": "ann", "token": "t-ann"})) is not ann  # the least recently used went


def test_passwords_are_not_remembered_beyond_their_pool() -> None:
    cache = CredentialCache()
    cache.source(LakebasePoolConfig(host="h", database="d", user="u", password="fixed"))
    assert len(cache) == 0


def test_under_contention_mints_never_overlap_and_no_rejected_token_comes_back() -> None:
    mint = Mint()
    source = MintedPassword(mint)
    returned: list[tuple[str, str]] = []

    def work(number: int) -> None:
        for turn in range(60):
            token = source.password(LONG)
            if (turn + number) % 7 == 0:
                source.invalidate(token)
                returned.append((token, source.password(LONG)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(12) as pool:
            for done in [pool.submit(work, number) for number in range(12)]:
                done.result(LONG)
    finally:
        sys.setswitchinterval(interval)
    assert mint.most_at_once == 1
    assert returned
    assert all(rejected != fresh for rejected, fresh in returned)
