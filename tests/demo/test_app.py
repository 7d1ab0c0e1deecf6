"""The demo's app over HTTP: which rows and errors its clients get, and that it keeps no connection."""

import asyncio
import json
import logging
import re
import socket
import uuid
from typing import Annotated

import httpx
import psycopg
import pytest
from fastapi import APIRouter, Depends, HTTPException

from lakebase import AsyncLakebasePoolManager, token_fingerprint
from lakebase.demo.app import App, Notes, one_transaction
from lakebase.demo.server import Server
from pooling.di import Inject, Managed
from tests.demo.conftest import ANN, BOB

TOO_LONG = "x" * 201


def texts(owner, like):
    with owner.connection() as conn:
        rows = conn.execute("select text from notes where text like %s order by id", [like]).fetchall()
    return [text for (text,) in rows]


def execute(owner, statement):
    with owner.connection() as conn:
        conn.execute(statement)


async def all_are_given_back(parts):
    """Return once no connection is borrowed."""
    pools = parts.user_pools()
    async with asyncio.timeout(60):
        while pools.stats().borrowed:
            await asyncio.sleep(0)


# --- rows ----------------------------------------------------------------------------------------------------


async def test_users_at_once_see_their_own_rows_and_the_owner_sees_all(http, headers, dataset, owner):
    asked = [ANN, BOB] * 10
    answers = await asyncio.gather(*(http.get("/notes", headers=headers(user)) for user in asked))
    for user, answer in zip(asked, answers, strict=True):
        assert {row["owner"] for row in answer.json()} == {user}
    assert set(dataset.notes()) == {ANN, BOB}


async def test_the_app_itself_is_its_service_principal(http, lake):
    assert (await http.get("/status")).json() == {"role": lake.client_id}


async def test_what_was_acknowledged_can_be_read_at_once(http, headers, owner):
    for number in range(10):
        text = f"{uuid.uuid4()}-{number}"
        assert (await http.post("/notes", headers=headers(ANN), json={"texts": [text]})).status_code == 201
        assert texts(owner, text) == [text]


async def test_a_later_token_gets_a_pool_of_its_own(http, headers, lake, parts):
    user = "rotated@corp.example"
    old, pools = lake.add_user(user), parts.user_pools()
    assert (await http.get("/notes", headers=headers(user, old))).status_code == 200
    pool = pools.get_pool(user)
    assert (await http.get("/notes", headers=headers(user, old))).status_code == 200
    assert pools.get_pool(user) is pool
    new = lake.add_user(user)
    assert (await http.get("/notes", headers=headers(user, new))).status_code == 200
    assert pools.get_pool(user) is not pool
    assert not pool.closed
    assert (await http.get("/notes", headers=headers(user, old))).status_code == 200
    assert lake.stats().user(user).minted == 2
    assert pools.stats().rotations == 1


async def test_requests_that_cross_a_rotation_are_all_served(http, headers, lake, parts):
    user = "crossing@corp.example"
    tokens = [lake.add_user(user), lake.add_user(user)]
    answers = await asyncio.gather(*(http.get("/notes", headers=headers(user, tokens[n % 2])) for n in range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert parts.user_pools().stats().rotations > 0
    assert lake.stats().user(user).minted == 2
    await all_are_given_back(parts)


async def test_connections_that_the_server_dropped_are_replaced(http, headers, lake, dataset):
    assert (await http.get("/notes", headers=headers(ANN))).status_code == 200
    assert await asyncio.to_thread(lake.drop_connections, ANN) >= 1
    assert (await http.get("/notes", headers=headers(ANN))).status_code == 200


async def test_a_connection_that_breaks_in_use_is_an_error_and_not_kept(
    http, server, headers, lake, dataset, owner, parts
):
    reader, writer = await begin_upload(server, headers, dataset, BOB)
    await asyncio.to_thread(lake.drop_connections, BOB)
    writer.write(b"7\r\nbroken!\r\n0\r\n\r\n")
    assert b" 503 " in await reader.readline()
    writer.close()
    await all_are_given_back(parts)
    assert texts(owner, "upload%") == texts(owner, "broken%") == []
    assert (await http.get("/notes", headers=headers(BOB))).status_code == 200


# --- one transaction -----------------------------------------------------------------------------------------------


async def test_a_refused_write_is_undone_with_all_that_came_before_it(http, headers, dataset, owner, parts):
    request = str(uuid.uuid4())
    answer = await http.post("/notes", headers=headers(ANN, request=request), json={"texts": ["half of it", TOO_LONG]})
    assert answer.status_code == 422
    assert "notes_text_check" in answer.json()["detail"]
    assert texts(owner, "half of it") == []
    assert request not in dataset.visits().get(ANN, {})
    await all_are_given_back(parts)


async def test_an_answer_that_a_handler_raises_undoes_what_it_did(app, http, headers, owner, parts):
    router = APIRouter(dependencies=[Depends(one_transaction, scope="function")])

    @router.post("/conflict")
    async def conflict(notes: Annotated[Notes, Depends(Inject(App.notes))]):
        await notes.add(["written, then regretted"])
        raise HTTPException(409, "regretted")

    @router.post("/broken")
    async def broken(notes: Annotated[Notes, Depends(Inject(App.notes))]):
        await notes.add(["written, then broken"])
        raise ZeroDivisionError

    app.include_router(router)
    assert (await http.post("/conflict", headers=headers(ANN))).status_code == 409
    logging.disable(logging.ERROR)  # uvicorn's traceback of what is broken on purpose
    try:
        assert (await http.post("/broken", headers=headers(ANN))).status_code == 500
    finally:
        logging.disable(logging.NOTSET)
    assert texts(owner, "written, then %") == []
    await all_are_given_back(parts)


# --- identities ------------------------------------------------------------------------------------------------------


async def test_a_request_without_a_user_is_told_to_sign_in_and_the_log_which_header_is_missing(http, lake, caplog):
    caplog.set_level("INFO", logger="pooling")
    before = lake.stats()
    answer = await http.get("/notes")
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("sign in: ")
    assert "X-Forwarded-Email" in caplog.text
    assert (lake.stats().total, lake.stats().minted) == (before.total, before.minted)


async def test_a_name_without_a_token_gets_no_connection(http, headers, lake, parts, caplog):
    caplog.set_level("INFO", logger="pooling")
    assert (await http.get("/notes", headers=headers(ANN))).status_code == 200  # so there is a pool to be had
    before = lake.stats().user(ANN)
    answer = await http.get("/notes", headers={"X-Forwarded-Email": ANN})
    assert answer.status_code == 401
    assert "does not prove who you are" in answer.json()["detail"]
    assert "X-Forwarded-Access-Token" in caplog.text
    assert lake.stats().user(ANN) == before
    assert parts.user_pools().stats().borrowed == 0


async def test_the_token_of_another_user_is_refused(http, headers, lake, parts):
    mallory = lake.add_user("mallory@corp.example")
    answer = await asyncio.wait_for(http.get("/notes", headers=headers(ANN, mallory)), 60)
    assert answer.status_code == 403
    assert "refuses your login" in answer.json()["detail"]
    assert lake.stats().user(ANN).refused > 0
    assert lake.stats().user("mallory@corp.example").total == 0
    # The attempt does not lock the real user out.
    assert {row["owner"] for row in (await http.get("/notes", headers=headers(ANN))).json()} == {ANN}
    await all_are_given_back(parts)


async def test_a_revoked_token_is_refused_without_retries(http, headers, lake):
    token = lake.add_user("gone@corp.example")
    lake.revoke("gone@corp.example")
    answer = await asyncio.wait_for(http.get("/notes", headers=headers("gone@corp.example", token)), 60)
    assert answer.status_code == 401
    assert "sign in again" in answer.json()["detail"]


async def test_two_different_names_in_one_request_are_refused(http, headers, caplog):
    caplog.set_level("INFO", logger="pooling")
    both = [*headers(ANN).items(), ("X-Forwarded-Email", BOB)]
    answer = await http.get("/notes", headers=both)
    assert answer.status_code == 401
    assert "two different" in caplog.text


async def test_an_endpoint_without_free_connections_is_reported_as_busy(app, lake, parts, headers):
    async with Server(app) as server, httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
        impatient = {"user": ANN, "token": lake.token(ANN), "timeout": 0.5}
        parts.user_pools().get_pool(ANN, impatient, token_fingerprint(lake.token(ANN)))
        lake.too_many_connections(user=ANN)
        try:
            answer = await http.get("/notes", headers=headers(ANN))
        finally:
            lake.clear_faults()
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        async with asyncio.timeout(60):
            while (await http.get("/notes", headers=headers(ANN))).status_code != 200:
                pass  # on a busy machine, a login may take longer than this pool's timeout


# --- tokens --------------------------------------------------------------------------------------------------------


class Recorded(psycopg.AsyncConnection):
    """A connection that notes the password it was made with."""

    passwords: list[str] = []  # noqa: RUF012 - shared on purpose

    @classmethod
    async def connect(cls, conninfo="", **kwargs):
        cls.passwords.append(kwargs["password"])
        return await super().connect(conninfo, **kwargs)


async def test_no_token_is_in_any_log_answer_or_text(lake, app, parts, headers, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    manager = Managed(
        AsyncLakebasePoolManager, parts.database, stop="close_all", connection_class=Recorded, max_total=4
    )
    Recorded.passwords.clear()
    mallory = lake.add_user("mallory@corp.example")
    revoked = lake.add_user("revoked@corp.example")
    lake.revoke("revoked@corp.example")
    shown = []
    with parts.user_pools.override(manager):
        async with Server(app) as server, httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
            for given in (
                headers(ANN), headers(BOB), headers(ANN, mallory), headers("revoked@corp.example", revoked),
                {"X-Forwarded-Email": ANN}, {"X-Forwarded-Access-Token": mallory},
            ):  # fmt: skip
                answer = await http.get("/notes", headers=given)
                shown += [answer.text, str(answer.headers)]
            pools = parts.user_pools()
            shown += [repr(pools), repr(pools.stats()), repr(parts), *map(repr, map(pools.get_pool, pools.keys()))]
    shown += [caplog.text, *capfd.readouterr()]
    tokens = {lake.token(ANN), lake.token(BOB), mallory, revoked, *Recorded.passwords}
    assert len(tokens) >= 6, "the workspace's tokens, and what was minted with them"
    everything = "\n".join(shown)
    assert "ann@corp.example" in everything
    assert [token[:8] for token in tokens if token in everything] == []
    # Nor a part of one: what is minted is a JWT, signed.
    assert re.findall(r"eyJ[\w-]{10,}|dapi[0-9a-f]{6,}", everything) == []


# --- requests that take their time ------------------------------------------------------------------------------------


async def begin_upload(server, headers, dataset, user):
    """A socket on which an upload of that user has begun, and holds its connection."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = ["PUT /notes HTTP/1.1", "Host: app", "Transfer-Encoding: chunked"]
    lines += [f"{name}: {value}" for name, value in headers(user).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + b"8\r\nupload1\n\r\n")
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(dataset.is_in_transaction, user):
            pass
    return reader, writer


async def test_an_upload_is_committed_when_it_is_complete(server, headers, dataset, owner, parts):
    reader, writer = await begin_upload(server, headers, dataset, BOB)
    assert parts.user_pools().stats().borrowed == 1
    writer.write(b"7\r\nupload2\r\n0\r\n\r\n")
    assert b"200 OK" in await reader.readline()
    writer.close()
    await all_are_given_back(parts)
    assert texts(owner, "upload%") == ["upload1", "upload2"]
    execute(owner, "delete from notes where text like 'upload%'")


async def test_an_upload_that_is_broken_off_leaves_nothing(http, server, headers, dataset, owner, parts):
    _, writer = await begin_upload(server, headers, dataset, BOB)
    writer.transport.abort()
    await all_are_given_back(parts)
    assert texts(owner, "upload%") == []
    # The connection that was given back serves the next request.
    assert len((await http.get("/notes", headers=headers(BOB))).json()) == dataset.notes()[BOB]


@pytest.fixture
def many(lake, owner):
    """A user with more rows than all buffers on the way to a client hold."""
    user = "many@corp.example"
    lake.add_user(user)
    execute(owner, f"insert into notes (owner, text) select '{user}', repeat('x', 200) from generate_series(1, 60000)")
    yield user
    execute(owner, f"delete from notes where owner = '{user}'")


async def begin_stream(server, headers, user):
    """A socket with a small buffer on which rows arrive, and the first of them."""
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=65536)
    lines = ["GET /notes/stream HTTP/1.1", "Host: app", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers(user).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(60):
        while (line := await reader.readline()) and not line.startswith(b"{"):
            pass
    return reader, writer, json.loads(line)


async def test_a_stream_has_its_connection_until_its_last_row(server, headers, many, parts):
    reader, writer, first = await begin_stream(server, headers, many)
    assert first["owner"] == many
    assert parts.user_pools().stats().borrowed == 1
    rows = 1
    while line := await reader.readline():
        rows += line.startswith(b"{")
    writer.close()
    assert rows == 60_000
    await all_are_given_back(parts)


async def test_a_client_that_leaves_a_stream_gives_its_connection_back(http, server, headers, many, parts):
    _, writer, _ = await begin_stream(server, headers, many)
    writer.transport.abort()
    await all_are_given_back(parts)
    assert (await http.post("/notes", headers=headers(many), json={"texts": ["still here"]})).status_code == 201
    await all_are_given_back(parts)


async def test_a_stopped_app_leaves_no_connection(app, lake, headers):
    async with Server(app) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        for user in (ANN, BOB):
            await http.get("/notes", headers=headers(user))
        await http.get("/status")
    for user in (ANN, BOB, lake.client_id):
        await asyncio.to_thread(lake.wait_for_connections, 0, user)
