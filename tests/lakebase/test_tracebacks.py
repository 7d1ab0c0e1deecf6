"""What an error tracker sees that shows the local variables of every frame: no password and no token."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lakebase import (
    AsyncLakebasePool,
    AsyncUserScopedPool,
    IdentityError,
    LakebasePool,
    LakebasePoolConfig,
    LakebasePoolManager,
    RoutingPool,
    UserIdentity,
    UserScopedPool,
    create_async_lakebase_pool,
    create_lakebase_pool,
    generate_database_credential,
    request_identity,
    resolve_username,
    with_endpoint_host,
)
from lakebase._secrets import HiddenText, WithoutLocals
from lakebase.credentials import credential_source
from lakebase.drivers import LivePassword
from pooling import PoolExhaustedError, PoolingError, RequestContext

SECRET = "s3cret-in-a-frame"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it, also what `from` hides."""
    yield error
    for one in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        if one is not None:
            yield from chain(one)


def shown(error: BaseException) -> str:
    """All that there is to be seen of an error, apart from the frames of the tests themselves."""
    texts = []
    for one in chain(error):
        texts.append(f"{one!r} {one} {vars(one)!r} {getattr(one, '__notes__', '')}")
        for frame, line in traceback.walk_tb(one.__traceback__):
            if not frame.f_code.co_name.startswith("test_"):
                texts.append(f"{frame.f_code.co_qualname}:{line} {frame.f_locals!r}")
        captured = traceback.TracebackException.from_exception(one, capture_locals=True)
        texts += [f"{frame.name} {frame.locals}" for frame in captured.stack if not frame.name.startswith("test_")]
    return "\n".join(texts)


@pytest.fixture
def minted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The credentials minted in the test, as the workspace returned them."""
    from lakebase import credentials

    tokens: list[str] = []
    mint = credentials.mint

    def watched(*arguments: Any, **keywords: Any) -> Any:
        token, expires_at = mint(*arguments, **keywords)
        tokens.append(token)
        return token, expires_at

    monkeypatch.setattr(credentials, "mint", watched)
    return tokens


def assert_hidden(error: BaseException, *secrets: str) -> None:
    text = shown(error)
    assert len(text) > 500
    for secret in secrets:
        for part in (secret, secret[:14], secret[-14:]):
            assert part not in text, text[max(text.index(part) - 400, 0) : text.index(part) + 60]


def test_the_driver_alone_shows_its_password(lakebase_user) -> None:
    # Were it otherwise, none of the tests below could fail.
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect(host=lakebase_user.lake.host, port=lakebase_user.lake.port, user="nobody", password=SECRET)
    assert shown(caught.value).count(SECRET) > 2


def raising(*_: object) -> Any:
    in_hand = SECRET
    raise KeyError(len(in_hand))


def sdk_client(lake: Any) -> Any:
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(host=lake.workspace_url, token=SECRET, auth_type="pat")


def another(user: Any) -> Any:
    return user.config().merged({"user": "nobody", "token": user.token})


def of_arguments(lake: Any) -> dict[str, Any]:
    return {"host": lake.host, "port": lake.port, "user": "nobody", "sslmode": "require", "password": SECRET}


def text(lake: Any, scheme: str = "postgresql") -> str:
    return f"{scheme}://nobody:{SECRET}@{lake.host}:{lake.port}/{lake.database}?sslmode=require"


# How a pool is made, from its class, its front end's `create_lakebase_pool`, and a user.
WAYS: dict[str, Any] = {
    "a connection string": lambda pool, _, user: pool(text(user.lake)),
    "a function for it": lambda pool, _, user: pool(lambda: text(user.lake)),
    "a bad connection string": lambda pool, _, user: pool(text(user.lake, "postgresql+psycopg")),
    "arguments": lambda pool, _, user: pool("", kwargs=of_arguments(user.lake)),
    "a function for them": lambda pool, _, user: pool("", kwargs=lambda: of_arguments(user.lake)),
    "bad arguments": lambda pool, _, user: pool("", kwargs=of_arguments(user.lake) | {"sslmode": "none"}),
    "a function that raises": lambda pool, _, user: pool(lambda: text(user.lake), kwargs=raising),
    "no server": lambda pool, _, user: pool("", kwargs=of_arguments(user.lake) | {"port": 1}, timeout=0.2),
    "a wrong password": lambda _, make, user: make(user.config(token=None, endpoint=None, password=SECRET)),
    "a password callable": lambda _, make, user: make(user.config(token=None, endpoint=None, password=lambda: SECRET)),
    "a callable that raises": lambda _, make, user: make(user.config(token=None, password=raising)),
    "a callable that gives bytes": lambda _, make, user: make(
        user.config(token=None, password=lambda: SECRET.encode())
    ),
    "another's token": lambda _, make, user: make(another(user)),
    "a token that mints nothing": lambda _, make, user: make(user.config(token=SECRET)),
    "an unknown endpoint": lambda _, make, user: make(user.config(endpoint=f"{user.lake.endpoint}-unknown")),
    "no host for an endpoint": lambda _, make, user: make(user.config(host=None, token=SECRET)),
    "no role for an identity": lambda _, make, user: make(
        user.config(token=None, workspace_client=sdk_client(user.lake)).merged({"user": None})
    ),
    "no workspace": lambda _, make, user: make(user.config(workspace_url="http://127.0.0.1:1"), timeout=0.3),
    "the SDK is refused": lambda _, make, user: make(user.config(token=None, workspace_client=sdk_client(user.lake))),
    "an untrusted server": lambda _, make, user: make(user.config(ssl_root_cert="/dev/null")),
    "no database": lambda _, make, user: make(user.config(database="none")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_pool_that_cannot_connect_hides_its_password(lakebase_user, minted: list[str], way: str) -> None:
    pool = WAYS[way](LakebasePool, create_lakebase_pool, lakebase_user)
    for action in (pool.getconn, lambda: pool.open(wait=True, timeout=0.3)):
        with pytest.raises((psycopg.Error, PoolingError)) as caught:
            action()
        assert_hidden(caught.value, SECRET, lakebase_user.token, *minted)
        pool.min_size or pool.resize(1, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_so_does_one_for_asyncio(lakebase_user, minted: list[str], way: str) -> None:
    pool = WAYS[way](AsyncLakebasePool, create_async_lakebase_pool, lakebase_user)
    for action in (pool.getconn, lambda: pool.open(wait=True, timeout=0.3)):
        with pytest.raises((psycopg.Error, PoolingError)) as caught:
            await action()
        assert_hidden(caught.value, SECRET, lakebase_user.token, *minted)
        pool.min_size or await pool.resize(1, 1)


@pytest.mark.parametrize("way", ["a function that raises", "a callable that raises", "no host for an endpoint"])
async def test_so_do_the_settings_for_those_who_connect_by_themselves(lakebase_user, way: str) -> None:
    with pytest.raises((psycopg.Error, KeyError)) as caught:
        WAYS[way](LakebasePool, create_lakebase_pool, lakebase_user)._resolve_kwargs()
    assert_hidden(caught.value, SECRET, lakebase_user.token)
    with pytest.raises((psycopg.Error, KeyError)) as caught:
        await WAYS[way](AsyncLakebasePool, create_async_lakebase_pool, lakebase_user)._resolve_kwargs()
    assert_hidden(caught.value, SECRET, lakebase_user.token)


def test_an_engine_of_sqlalchemy_hides_it_too(lakebase_user, minted: list[str]) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from lakebase.sqlalchemy import create_lakebase_engine

    with create_lakebase_pool(another(lakebase_user)) as pool:
        engine = create_lakebase_engine(pool)
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            engine.connect()
    assert len(minted) == 2
    assert_hidden(caught.value, lakebase_user.token, *minted)


def test_a_request_that_gets_no_pool_hides_its_token(lakebase_user) -> None:
    ann = UserIdentity("ann@corp.example", SECRET)
    with LakebasePoolManager(lakebase_user.config(), max_pools=1) as manager:
        with manager.for_user(UserIdentity(lakebase_user.name, lakebase_user.token)).connection():
            with pytest.raises(PoolExhaustedError) as caught:
                manager.for_user(ann)
        assert_hidden(caught.value, SECRET)
        with create_lakebase_pool(lakebase_user.config()) as app_pool, RequestContext(identity=ann):
            with pytest.raises(psycopg.Error) as failed, RoutingPool(app_pool, manager.for_user).connection():
                pass
        assert_hidden(failed.value, SECRET)


REFUSALS: dict[str, Any] = {
    "no token of the workspace's": lambda lake: None,
    "a workspace that fails": lambda lake: lake.fail_workspace(503, path="/Me"),
    "a workspace that is not understood": lambda lake: lake.fail_workspace(404, path="/Me"),
    "a workspace that does not answer": lambda lake: lake.hold_workspace(path="/Me"),
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_token_that_cannot_be_verified_is_hidden(lakebase_user, why: str) -> None:
    lake = lakebase_user.lake
    ann = UserIdentity("ann@corp.example", SECRET)
    try:
        REFUSALS[why](lake)
        with create_lakebase_pool(lakebase_user.config()) as pool, pytest.raises(PoolingError) as caught:
            with UserScopedPool(pool).connection(0.5, identity=ann):
                pass
        async with create_async_lakebase_pool(lakebase_user.config()) as apool:
            with pytest.raises(PoolingError) as acaught:
                async with AsyncUserScopedPool(apool).connection(0.5, identity=ann):
                    pass
    finally:
        lake.clear_faults()
    for error in (caught.value, acaught.value):
        assert_hidden(error, SECRET)


@pytest.mark.parametrize("more", [{"X-Forwarded-Email": "a,b"}, {"X-Forwarded-User": " "}, {}])
def test_headers_that_name_no_user_hide_their_token(more: dict[str, str]) -> None:
    request = RequestContext(**request_identity({"headers": {"X-Forwarded-Access-Token": SECRET, **more}}))
    for _ in range(2):
        with pytest.raises(IdentityError) as caught:
            request["identity"]
        assert "from_headers" in shown(caught.value)
        assert_hidden(caught.value, SECRET)


async def test_a_cancelled_login_hides_its_password(lakebase_user) -> None:
    pool = create_async_lakebase_pool(lakebase_user.config(token=None, endpoint=None, password=SECRET))
    with lakebase_user.lake.hang(user=lakebase_user.name):
        waiting = asyncio.create_task(pool.service.factory.create())
        await asyncio.to_thread(lakebase_user.lake.wait_for_connections, 0, lakebase_user.name)
        await asyncio.sleep(0.2)  # sleeps: until the driver waits for the server
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await waiting
    assert "connect" in shown(caught.value)
    assert_hidden(caught.value, SECRET)


@pytest.mark.parametrize(
    "ask",
    [
        lambda config, client: generate_database_credential(client, config.endpoint),
        lambda config, _: with_endpoint_host(config),
        lambda config, client: with_endpoint_host(config, client),
        lambda config, _: resolve_username(config.merged({"user": None}), environ={}),
        lambda config, _: str(LivePassword(config)),
    ],
)
def test_questions_to_the_workspace_hide_the_token(lakebase_user, ask: Any) -> None:
    config = lakebase_user.config(token=SECRET)
    with pytest.raises(Exception, match=r"could|user is missing") as caught:
        ask(config, sdk_client(lakebase_user.lake))
    assert_hidden(caught.value, SECRET)


async def test_a_callable_that_fails_hides_what_it_had_in_hand() -> None:
    async def araising() -> Any:
        return raising()

    async def bytes_of_it() -> Any:
        return SECRET.encode()

    for call in (raising, lambda: SECRET.encode()):
        with pytest.raises(psycopg.Error) as caught:
            str(LivePassword(LakebasePoolConfig(password=call)))
        assert_hidden(caught.value, SECRET)
    for acall in (araising, bytes_of_it):
        with pytest.raises(psycopg.Error) as caught:
            await credential_source(LakebasePoolConfig(password=acall), is_async=True).apassword()
        assert_hidden(caught.value, SECRET)


def test_an_app_with_a_wrong_secret_hides_it(lakebase_user, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**lakebase_user.lake.environment(), "DATABRICKS_CLIENT_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)
    with create_lakebase_pool() as pool, pytest.raises(psycopg.Error) as caught:
        pool.getconn()
    assert_hidden(caught.value, SECRET)


def test_what_was_being_handled_before_keeps_its_variables() -> None:
    def mistake() -> None:
        telling = "seen"
        raise ValueError(telling)

    try:
        mistake()
    except ValueError as outer:
        with pytest.raises(KeyError) as caught, WithoutLocals():
            raising()
        frames = [frame.f_locals for frame, _ in traceback.walk_tb(outer.__traceback__)]
        assert {"telling": "seen"} in frames
    assert caught.value.__context__ is not None
    assert {} in [frame.f_locals for frame, _ in traceback.walk_tb(caught.value.__traceback__)]


def test_hidden_text_is_text() -> None:
    hidden = HiddenText(SECRET)
    assert (hidden, f"{hidden}", repr({"token": hidden})) == (SECRET, SECRET, "{'token': '***'}")
