"""The identity of a request, from the headers as each web framework presents them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase import ConfigurationError, IdentityError, LakebasePoolConfig, UserIdentity, token_fingerprint

TOKEN = "dapi-0123456789abcdef"
HEADERS = {
    "X-Forwarded-Access-Token": TOKEN,
    "X-Forwarded-Email": "ann@corp.example",
    "X-Forwarded-User": "1234567890",
    "X-Forwarded-Preferred-Username": "Ann",
    "X-Request-Id": "r-1",
}


def starlette() -> object:
    return pytest.importorskip("starlette.datastructures").Headers(HEADERS)


def asgi_scope() -> object:
    return [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


def httpx_headers() -> object:
    return pytest.importorskip("httpx").Headers(HEADERS)


def wsgi_environ() -> object:
    environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in HEADERS.items()}
    return {**environ, "REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.version": (1, 0), "wsgi.errors": object()}


def django_meta_under_asgi() -> object:
    environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in HEADERS.items()}
    return {**environ, "REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PORT": "80"}


def upper() -> object:
    return {name.upper(): value for name, value in HEADERS.items()}


@pytest.mark.parametrize(
    "headers", [lambda: HEADERS, upper, starlette, httpx_headers, asgi_scope, wsgi_environ, django_meta_under_asgi]
)
def test_headers_of_every_kind_give_the_same_identity(headers) -> None:
    identity = UserIdentity.from_headers(headers())
    assert identity == UserIdentity(
        "ann@corp.example", TOKEN, email="ann@corp.example", user_id="1234567890", from_request=True
    )
    assert (identity.display_name, identity.request_id) == ("Ann", "r-1")
    assert identity.selects_pool


def test_without_an_email_the_user_id_is_the_role() -> None:
    assert UserIdentity.from_headers({"x-forwarded-user": "42", "x-forwarded-access-token": TOKEN}).user == "42"


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-access-token": TOKEN}, {"x-forwarded-email": ""}, []])
def test_a_request_without_a_user_is_refused(headers) -> None:
    with pytest.raises(IdentityError, match="X-Forwarded-Email") as caught:
        UserIdentity.from_headers(headers)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("token", [{}, {"X-Forwarded-Access-Token": ""}])
def test_headers_without_a_token_never_select_a_pool(token) -> None:
    identity = UserIdentity.from_headers({"X-Forwarded-Email": "ann@corp.example", **token})
    assert not identity.selects_pool
    for use in (identity.pool_key, identity.pool_config):
        with pytest.raises(IdentityError, match="X-Forwarded-Access-Token") as caught:
            use()
        assert caught.value.header == "X-Forwarded-Access-Token"


def test_an_identity_that_the_app_vouches_for_selects_one() -> None:
    assert UserIdentity("ann").pool_config() == {"user": "ann"}
    assert UserIdentity("ann", TOKEN).pool_config() == {"user": "ann", "token": TOKEN}


def test_two_different_values_of_one_header_are_refused() -> None:
    pairs = [(b"x-forwarded-email", b"ann@corp"), (b"x-forwarded-email", b"eve@corp"), (b"x-forwarded-user", b"1")]
    with pytest.raises(IdentityError, match="two different X-Forwarded-Email"):
        UserIdentity.from_headers(pairs)
    with pytest.raises(IdentityError, match="comma"):
        UserIdentity.from_headers({"X-Forwarded-Email": "ann@corp, eve@corp"})


@pytest.mark.parametrize("header", ["X-Forwarded-Access-Token", "X-Forwarded-Email", "X-Forwarded-User"])
def test_two_values_that_a_proxy_has_joined_are_refused(header: str) -> None:
    one = HEADERS[header]
    with pytest.raises(IdentityError, match=f"{header} has a comma"):
        UserIdentity.from_headers({**HEADERS, header: f"{one},{one}"})


JEROME = "jérôme@corp.example"


@pytest.mark.parametrize(
    "value",
    [JEROME.encode(), JEROME.encode().decode("latin-1"), JEROME, JEROME.encode("latin-1")],
    ids=["the bytes", "read as Latin-1", "read as UTF-8", "Latin-1"],
)
def test_a_name_outside_of_ascii_arrives_as_it_was_sent(value: str | bytes) -> None:
    headers = [("x-forwarded-email", value), ("x-forwarded-preferred-username", value)]
    identity = UserIdentity.from_headers(headers)
    assert (identity.user, identity.display_name) == (JEROME, JEROME)
    assert UserIdentity.from_headers({"REQUEST_METHOD": "GET", "HTTP_X_FORWARDED_EMAIL": value}).user == JEROME


def test_a_name_that_latin_1_does_not_have_arrives_too() -> None:
    for value in ("李@corp.example", "李@corp.example".encode(), "李@corp.example".encode().decode("latin-1")):
        assert UserIdentity.from_headers({"X-Forwarded-Email": value}).user == "李@corp.example"


@pytest.mark.parametrize("value", ["ann\udce9@corp", "ann\x85@corp", b"ann\xc2\x85@corp"])
def test_a_name_with_halves_of_characters_or_control_characters_is_refused(value: str | bytes) -> None:
    with pytest.raises(IdentityError, match="characters that cannot be in it"):
        UserIdentity.from_headers({"X-Forwarded-Email": value})


# Which of them Postgres takes for what is in `tests/lakebase/test_user_scope.py`.
NO_ROLES = {
    "none": "keeps this name",
    "NONE": "keeps this name",
    "public": "keeps this name",
    "current_user": "keeps this name",
    "session_user": "keeps this name",
    "Current_Role": "keeps this name",
    "pg_monitor": "keeps this name",
    "a" * 64: "64 bytes",
    "é" * 32: "64 bytes",
    "ann\udce9": "UTF-8|cannot be in it",
}


@pytest.mark.parametrize("name", NO_ROLES)
def test_a_name_that_is_no_role_of_its_own_is_refused_wherever_a_user_is_named(name: str) -> None:
    with pytest.raises(IdentityError, match=NO_ROLES[name]):
        UserIdentity(name)
    with pytest.raises(IdentityError, match=NO_ROLES[name]):
        UserIdentity.from_headers({**HEADERS, "X-Forwarded-Email": name})
    with pytest.raises(ConfigurationError, match=NO_ROLES[name]) as caught:
        LakebasePoolConfig(database="db").merged({"user": name, "token": TOKEN})
    assert caught.value.field == "user"


def test_the_longest_name_that_is_a_role_of_its_own_is_taken() -> None:
    for name in ("a" * 63, "é" * 31, "PG_Adams", "user"):
        assert LakebasePoolConfig(user=UserIdentity(name).user).user == name


def test_an_environs_spelling_among_headers_is_ignored() -> None:
    # A client may send a header of that very name, past a proxy that removes only the real ones.
    smuggled = {"HTTP_X_FORWARDED_EMAIL": "eve@corp", "REQUEST_METHOD": "GET", "X_Forwarded_Email": "eve@corp"}
    assert UserIdentity.from_headers({**HEADERS, **smuggled}).user == "ann@corp.example"
    with pytest.raises(IdentityError):
        UserIdentity.from_headers({**smuggled, "X-Request-Id": "r-1"})
    with pytest.raises(IdentityError):
        UserIdentity.from_headers({"HTTP_X_FORWARDED_EMAIL": "eve@corp"})


@pytest.mark.parametrize("value", ["qq\nqq", "qq\x00qq", " qq", "qq ", "q" * 400, 55, None])
@pytest.mark.parametrize("header", ["X-Forwarded-Email", "X-Forwarded-Access-Token"])
def test_a_value_that_cannot_be_one_is_refused_unseen(header: str, value: object) -> None:
    if header == "X-Forwarded-Access-Token" and value == "q" * 400:
        value = "q" * 20_000
    with pytest.raises(IdentityError, match=header) as caught:
        UserIdentity.from_headers({**HEADERS, header: value})
    assert str(value).strip() not in str(caught.value) or value is None


@pytest.mark.parametrize("headers", ["x", b"x", 5, [1], [("a", "b", "c")]])
def test_what_is_no_headers_at_all_is_refused(headers) -> None:
    with pytest.raises(IdentityError, match="expected a mapping"):
        UserIdentity.from_headers(headers)


def test_no_rendering_shows_the_token() -> None:
    identity = UserIdentity.from_headers(HEADERS)
    assert TOKEN not in f"{identity!r} {identity} {[identity]}"
    assert "ann@corp.example" in repr(identity)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_fingerprint_tells_tokens_apart_and_reveals_none(one: str, other: str) -> None:
    assert token_fingerprint(one) == token_fingerprint(one)
    assert (token_fingerprint(one) == token_fingerprint(other)) is (one == other)
    shown = token_fingerprint(one)
    assert shown is not None
    assert len(shown) == 24
    assert set(shown) <= set("0123456789abcdef")


def test_a_fingerprint_is_of_no_use_in_another_process() -> None:
    import subprocess
    import sys

    program = f"from lakebase import token_fingerprint; print(token_fingerprint({TOKEN!r}))"
    elsewhere = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() != token_fingerprint(TOKEN)


def test_no_token_has_no_fingerprint() -> None:
    assert token_fingerprint(None) is None
    assert UserIdentity("ann").fingerprint is None
    assert UserIdentity("ann", TOKEN).fingerprint == token_fingerprint(TOKEN)
