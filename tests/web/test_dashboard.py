"""The live page over HTTP, by ASGI and WSGI: what it tells, whom, and what it lets them do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading

import httpx
import pytest

from pooling import AsyncPoolingService, ConfigurationError, PoolTimeoutError
from pooling.web.dashboard import Dashboard, WsgiDashboard
from tests.web.dashboards import ANN, BOB, held, make_pool, make_pools, serve, waiting
from tests.web.servers import Uvicorn, eventually

BOTH = pytest.mark.parametrize("kind", ["asgi", "wsgi"])
READS = ["", "pools.json", "keys.json", "key.json", "events", "nothing"]
FAST = {"interval": 0.1}  # a test waits for the next sample


@pytest.fixture
def pools():
    with make_pools() as pools:
        yield pools


def pool_in(found, pools):
    (pool,) = [each for each in found["pools"] if each["name"] == pools.name]
    return pool


def rows_of(client, pools, **query):
    return client.get("keys.json", params={"pool": pools.name, **query}).json()


def label_of(client, pools, user):
    """The label under which a user is shown: a whole key is found where only its hash is shown."""
    (row,) = rows_of(client, pools, q=user)["rows"]
    return row["key"]


# --- who may see it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dashboard", [Dashboard, WsgiDashboard])
def test_there_is_none_without_a_decision_who_may_see_it(dashboard):
    with pytest.raises(TypeError):
        dashboard()
    with pytest.raises(ConfigurationError, match="authorize=None: expected a callable"):
        dashboard(None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"allow_actions": "yes"},
        {"show_keys": "no"},
        {"interval": 0},
        {"interval": float("nan")},
        {"interval": True},
        {"max_streams": 0},
    ],
    ids=str,
)
def test_an_argument_that_cannot_work_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=name):
        Dashboard(lambda scope: True, **wrong)


@BOTH
def test_one_who_may_not_see_it_learns_nothing(kind, pools):
    with held(pools, ANN), serve(kind, lambda request: False, allow_actions=True) as client:
        for path in READS:
            answer = client.get(path)
            assert (answer.status_code, list(answer.json())) == (403, ["error"]), path
            assert "authorize" in answer.json()["error"]
        assert client.post("action", json={"action": "expire", "pool": pools.name}).status_code == 403


@BOTH
def test_a_decision_that_fails_lets_nobody_in(kind, pools, caplog):
    def broken(request):
        raise RuntimeError("no session store")

    with serve(kind, broken) as client:
        answer = client.get("pools.json")
    assert answer.status_code == 500
    assert pools.name not in answer.text


@BOTH
@pytest.mark.parametrize("said", ["no", 1, None, {"user": "s3cr3t"}], ids=["text", "number", "nothing", "session"])
def test_only_true_lets_anybody_in_or_act(kind, said, pools, caplog):
    with serve(kind, lambda request: said, allow_actions=lambda request: said) as client:
        assert [client.get("pools.json").status_code for _ in range(3)] == [403] * 3
    with serve(kind, allow_actions=lambda request: said) as client:
        assert client.get("pools.json").json()["can_act"] is False
        assert act(client, "expire", pools).status_code == 403
    messages = [record.getMessage() for record in caplog.records if record.name == "pooling"]
    told = [one for one in messages if one.startswith("the live page's authorize returned a ")]
    assert len(told) == 1, "the first of three requests"
    assert type(said).__name__ in told[0]
    assert "s3cr3t" not in caplog.text


def test_the_decision_may_be_awaited_under_asgi(pools):
    async def by_header(scope):
        await asyncio.sleep(0)
        return (b"x-operator", b"yes") in scope["headers"]

    with serve("asgi", by_header) as client:
        assert client.get("pools.json").status_code == 403
        assert client.get("pools.json", headers={"x-operator": "yes"}).status_code == 200


def test_a_decision_that_has_to_be_awaited_is_refused_under_wsgi():
    async def later(environ):
        return False

    class Later:
        async def __call__(self, environ):
            return False

    for authorize in (later, Later()):
        with pytest.raises(ConfigurationError, match="cannot be awaited"):
            WsgiDashboard(authorize)
    with serve("wsgi", lambda environ: later(environ)) as client:
        assert client.get("pools.json").status_code == 500, "a coroutine is true, and must not mean yes"


# --- what it tells ---------------------------------------------------------------------------------------------------


@BOTH
def test_it_tells_pools_keys_budget_holders_and_waiters(kind, pools):
    with (
        make_pools(max_size=1, max_total=2) as crowded,
        waiting(crowded, ANN),
        serve(kind) as client,
    ):
        found = client.get("pools.json", params={"pool": crowded.name}).json()
        detail = client.get("key.json", params={"pool": crowded.name, "key": label_of(client, crowded, ANN)}).json()
        pool = pool_in(found, crowded)
        assert (pool["used"], pool["idle"], pool["waiting"], pool["keys"], pool["side"]) == (1, 0, 1, 1, "threads")
        (budget,) = [each for each in found["budgets"] if crowded.name in each["pools"]]
        assert (budget["taken"], budget["limit"], budget["used"], budget["waiting"]) == (1, 2, 1, 1)
        (row,) = found["keys"]["rows"]
        assert (row["used"], row["waiting"], row["max_size"], row["state"]) == (1, 1, 1, "running")
        (holder,) = detail["holders"]
        assert holder["age"] >= 0
        assert holder["resource"].startswith("Thing 0x")
        assert "dashboards.py" in holder["site"]
        (waiter,) = detail["waiters"]
        assert "waiter-1" in waiter["who"]
        assert [one for one in found["holders"] if one["pool"] == crowded.name] == [
            {**holder, "age": pytest.approx(holder["age"], abs=30)}
        ]


@BOTH
def test_users_and_what_paths_hold_are_hidden_unless_shown(kind, pools):
    with held(pools, ANN), make_pool() as reports, reports.lease():
        with serve(kind) as client:
            shown = "".join(client.get(path, params={"pool": pools.name}).text for path in ("pools.json", "keys.json"))
            shown += client.get("").text
            label = label_of(client, pools, ANN)
            assert re.fullmatch("#?[0-9a-f]{12}", label)
            shown += client.get("key.json", params={"pool": pools.name, "key": label}).text
            assert "GET /orders/…/reset/…" in shown
            for secret in (ANN, "ann", "s3cr3t", "hunter2"):
                assert secret not in shown
            by_key = client.get("key.json", params={"pool": pools.name, "key": ANN})
            assert by_key.json()["row"]["key"] == label, "who knows the key finds it, and is shown the hash"
            assert ANN not in by_key.text
        with serve(kind, show_keys=True) as client:
            (row,) = rows_of(client, pools)["rows"]
            assert row["key"] == ANN
            assert "s3cr3t-T0ken" in client.get("pools.json").text
            assert "hunter2" not in client.get("pools.json").text


@BOTH
def test_events_come_as_they_happen(kind, pools):
    with serve(kind, **FAST) as client:

        def texts():
            return [each["text"] for each in client.get("pools.json").json()["events"] if each["pool"] == pools.name]

        with pools.lease(ANN):
            eventually(lambda: texts() == [f"{pools.name}: created: {label_of(client, pools, ANN)}"])
        pools.expire(ANN)
        eventually(lambda: any("destroyed (expired)" in text for text in texts()))
        taken = [pools.acquire(BOB) for _ in range(6)]
        with pytest.raises(PoolTimeoutError):
            pools.acquire(BOB, timeout=0.01)
        for thing in taken:
            pools.release(thing)
        eventually(lambda: any("timed out (queueing)" in text for text in texts()))


@BOTH
def test_what_is_not_there_is_said_in_a_sentence(kind, pools):
    with pools.lease(ANN), make_pool() as reports, serve(kind) as client:
        for path, query, status, words in [
            ("pools.json", {"pool": "nope"}, 404, "has the name 'nope'. There are"),
            ("keys.json", {"pool": "nope"}, 404, "has the name 'nope'"),
            ("key.json", {"pool": pools.name, "key": "nope"}, 404, "has no key 'nope' now"),
            ("key.json", {"pool": pools.name}, 400, "has keys: say which"),
            ("key.json", {"pool": reports.name, "key": "x"}, 400, f"'{reports.name}' has no keys: leave out key='x'"),
            ("key.json", {}, 400, "Say which pool"),
            ("keys.json", {"sort": "password"}, 400, "expected one of key, busy"),
            ("keys.json", {"limit": "many"}, 400, "expected a whole number"),
            ("keys.json", {"offset": "-1"}, 400, "expected a whole number"),
            ("keys.json", {"limit": "9" * 30}, 400, "expected a whole number"),
            ("secrets", {}, 404, "There is nothing at 'secrets'"),
        ]:
            answer = client.get(path, params=query)
            assert answer.status_code == status, (path, query)
            assert words in answer.json()["error"]
        assert client.get("key.json", params={"pool": reports.name}).status_code == 200
        assert client.get("action").headers["allow"] == "POST"
        assert client.delete("keys.json").status_code == 405
        assert client.head("pools.json").content == b""


def test_ten_thousand_keys_are_sorted_and_cut_on_the_server():
    with make_pools(max_total=None) as pools, serve("asgi") as client:
        for number in range(10_000):
            pools.pool(f"user{number}@corp.example")
        with pools.lease("user4711@corp.example"), pools.lease("user42@corp.example"):
            first = rows_of(client, pools, limit=50)
            assert (first["total"], first["matching"], len(first["rows"])) == (10_000, 10_000, 50)
            assert [row["used"] for row in first["rows"][:3]] == [1, 1, 0]
            assert {row["key"] for row in first["rows"][:2]} == {
                label_of(client, pools, f"user{number}@corp.example") for number in (42, 4711)
            }
            pages = [rows_of(client, pools, sort="key", desc=0, limit=1000, offset=at) for at in range(0, 10_000, 1000)]
            keys = [row["key"] for page in pages for row in page["rows"]]
            assert keys == sorted(set(keys))
            assert len(keys) == 10_000
            assert rows_of(client, pools, offset=20_000, limit=10)["offset"] == 9990, (
                "the last page, where keys have left"
            )
            assert len(client.get("pools.json").content) < 200_000


# --- the page itself -------------------------------------------------------------------------------------------------


@BOTH
def test_the_page_is_one_file_that_runs_only_its_own_code(kind):
    with serve(kind) as client:
        answer = client.get("")
        policy = answer.headers["content-security-policy"]
        script = re.search("<script>(.*?)</script>", answer.text, re.DOTALL)[1]
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert set(re.findall("https?://[^\"' ]+", answer.text)) == {"http://www.w3.org/2000/svg"}, (
            "a name, not an address"
        )
        assert not re.search(r"\b(src|href)=\"(?!data:)", answer.text)
        assert "innerHTML" not in answer.text


@BOTH
def test_the_mount_itself_leads_to_the_page(kind):
    with serve(kind) as client:
        answer = httpx.get(str(client.base_url).rstrip("/"), follow_redirects=True)
        assert answer.url.path == "/pools/"
        assert "<title>Pools</title>" in answer.text


def test_a_route_and_an_included_router_serve_it_too():
    from fastapi import APIRouter, FastAPI

    routed, mounted = APIRouter(), APIRouter()
    routed.add_route("/pools/{path:path}", Dashboard(lambda scope: True))
    mounted.mount("/pools", Dashboard(lambda scope: True))
    app = FastAPI()
    app.include_router(routed, prefix="/routed")
    app.include_router(mounted, prefix="/mounted")
    with Uvicorn(app) as server:
        for prefix in ("/routed", "/mounted"):
            page = httpx.get(f"{server.url}{prefix}/pools", follow_redirects=True)
            assert page.url.path == f"{prefix}/pools/"
            assert "<title>Pools</title>" in page.text
            assert httpx.get(f"{server.url}{prefix}/pools/pools.json").json()["version"] == 1
            assert httpx.get(f"{server.url}{prefix}/pools/x/y").status_code == 404


def test_it_is_served_alone():
    with Uvicorn(Dashboard(lambda scope: True), lifespan="on") as server:
        assert httpx.get(f"{server.url}/pools.json").json()["version"] == 1


# --- events ----------------------------------------------------------------------------------------------------------


def first_sample(lines):
    return json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))


@BOTH
def test_a_stream_sends_samples(kind, pools):
    with held(pools, ANN), serve(kind, **FAST) as client, client.stream("GET", "events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("retry: ")
        assert pool_in(first_sample(lines), pools)["used"] == 1
        if kind == "asgi":
            assert pool_in(first_sample(lines), pools)["used"] == 1, "the next one comes by itself"
        else:
            assert list(lines) == [""], "a WSGI server has a thread for each stream, which must not stay busy"


def test_streams_are_limited_and_places_come_back(pools):
    with serve("asgi", max_streams=2, **FAST) as client:
        with client.stream("GET", "events") as one, client.stream("GET", "events") as two:
            lines = one.iter_lines(), two.iter_lines()  # kept: without them the streams are closed
            assert [first_sample(each)["version"] for each in lines] == [1, 1]
            refused = client.get("events")
            assert refused.status_code == 503
            assert refused.json()["error"].startswith("max_streams=2 pages")
            assert client.get("pools.json").status_code == 200

        def has_a_place():
            with client.stream("GET", "events") as again:
                return again.status_code == 200

        eventually(has_a_place)


def test_a_server_that_stops_waits_for_no_stream(pools):
    server = Uvicorn(Dashboard(lambda scope: True, **FAST))
    with server, httpx.stream("GET", f"{server.url}/events", timeout=30) as answer:
        lines = answer.iter_lines()
        first_sample(lines)
        server.server.should_exit = True
        for _ in lines:  # to its end
            pass
        server.thread.join(30)
        assert not server.thread.is_alive()


# --- actions ---------------------------------------------------------------------------------------------------------


def token_of(client):
    """The token in the page; the client has the cookie from now on."""
    return re.search('name="csrf" content="([^"]+)"', client.get("").text)[1]


def process_of(client):
    return client.get("pools.json").json()["process"]["id"]


def act(client, action, pools, key=None):
    body = {"action": action, "pool": pools.name, "key": key, "process": process_of(client)}
    return client.post("action", json=body, headers={"x-csrf-token": token_of(client)})


@BOTH
def test_it_is_read_only_unless_it_is_allowed(kind, pools):
    with serve(kind) as client:
        answer = act(client, "expire", pools)
        assert answer.status_code == 403
        assert "allow_actions" in answer.json()["error"]
        assert client.get("pools.json").json()["can_act"] is False


def test_a_callable_decides_for_each_request(pools):
    def is_admin(scope):
        return (b"x-admin", b"yes") in scope["headers"]

    with pools.lease(ANN), serve("asgi", allow_actions=is_admin) as client:
        assert client.get("pools.json", headers={"x-admin": "yes"}).json()["can_act"] is True
        assert client.get("pools.json").json()["can_act"] is False
        assert act(client, "expire", pools).status_code == 403
        client.headers["x-admin"] = "yes"
        assert act(client, "expire", pools).json() == {"done": "expire"}


@BOTH
def test_actions_do_what_they_say(kind, pools):
    with serve(kind, allow_actions=True, **FAST) as client:
        with pools.lease(ANN):
            label = label_of(client, pools, ANN)
        assert act(client, "expire", pools, label).json() == {"done": "expire"}
        eventually(lambda: pools.pool(ANN).available == 0)
        assert act(client, "suspend", pools, label).json() == {"done": "suspend"}
        with pytest.raises(PoolTimeoutError):
            pools.acquire(ANN, timeout=0.01)
        assert act(client, "resume", pools, label).json() == {"done": "resume"}
        with pools.lease(ANN), pools.lease(BOB):
            pass
        eventually(lambda: rows_of(client, pools)["total"] == 2)
        assert act(client, "expire", pools).status_code == 200, "all of its keys"
        eventually(lambda: (pools.pool(ANN).available, pools.pool(BOB).available) == (0, 0))
        assert act(client, "close", pools, label).json() == {"done": "close"}
        assert ANN not in pools
        assert BOB in pools
        told = f"{pools.name}: close, from the live page: {label}"
        eventually(lambda: told in [each["text"] for each in client.get("pools.json").json()["events"]])


@BOTH
def test_an_action_that_cannot_be_is_said_in_a_sentence(kind, pools):
    with make_pool() as reports, serve(kind, allow_actions=True) as client:
        with pools.lease(ANN):
            pass
        here = {"process": process_of(client)}
        for body, status, words in [
            ({"action": "drop", "pool": pools.name}, 400, "expected one of expire, suspend"),
            ({"action": "close", "pool": reports.name, "key": None, **here}, 400, "only a key can be closed"),
            ({"action": "expire", "pool": reports.name, "key": "x", **here}, 400, "has no keys"),
            ({"action": "close", "pool": "nope", "key": None, **here}, 404, "No pool of this process"),
            ({"action": "close", "pool": pools.name, "key": "nope", **here}, 404, "has no key"),
            ({"action": "close", "pool": pools.name, "key": None, **here}, 400, "Name a key"),
            ({"action": "close", "pool": pools.name, **here}, 400, "Name a key"),
            ({"action": "expire", "pool": pools.name}, 400, "Say of which process"),
            ({"action": "expire", "pool": pools.name, "process": None}, 400, "Say of which process"),
            ({"action": "close", "pool": pools.name, "key": 5}, 400, "key: expected a text"),
            ({"action": "close", "pool": pools.name, "key": "x", "process": "other"}, 409, "Another process"),
            ([], 400, "Expected a JSON object"),
            ({"action": "expire", "pool": "x" * 20_000}, 413, "at most 10000 bytes"),
        ]:
            answer = client.post("action", json=body, headers={"x-csrf-token": token_of(client)})
            assert answer.status_code == status, body
            assert words in answer.json()["error"]
        assert ANN in pools
        assert pools.pool(ANN).available == 1, "nothing was done"
        deep = client.post(
            "action", content="[" * 9000, headers={"x-csrf-token": token_of(client), "content-type": "application/json"}
        )
        assert deep.status_code == 400


FORGED = [
    ({"x-csrf-token": ""}, 403),
    ({"x-csrf-token": "x" * 43}, 403),
    ({"x-csrf-token": "ä" * 43}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"content-type": "text/plain"}, 415),
    ({"cookie": "pooling_csrf=x"}, 403),
]


@BOTH
def test_what_another_site_sends_does_nothing(kind, pools):
    with pools.lease(ANN):
        pass
    with serve(kind, allow_actions=True) as client:
        own = {"x-csrf-token": token_of(client), "content-type": "application/json"}
        body = json.dumps({"action": "expire", "pool": pools.name, "process": process_of(client)})
        for forged, status in FORGED:
            headers = {name: value.encode() for name, value in {**own, **forged}.items()}
            assert client.post("action", content=body, headers=headers).status_code == status, forged
            assert pools.pool(ANN).available == 1
        assert client.post("action", content=body, headers=own).status_code == 200, "the page itself may"
        eventually(lambda: pools.pool(ANN).available == 0)


def test_a_token_outlives_a_restart_of_the_server(pools):
    with serve("asgi", allow_actions=True) as first:
        token, cookies = token_of(first), first.cookies
    with serve("asgi", allow_actions=True) as second:
        second.cookies = cookies
        headers = {"x-csrf-token": token}
        body = {"action": "expire", "pool": pools.name, "process": process_of(second)}
        assert second.post("action", json=body, headers=headers).status_code in {200, 404}
        assert token_of(second) == token


def test_a_pool_of_another_loop_is_changed_in_its_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    threads = []

    class Noting(AsyncPoolingService):
        def expire(self):
            threads.append(threading.current_thread())
            super().expire()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def make():
        return object()

    pool = Noting(make, name="elsewhere")
    try:
        run(pool.release(run(pool.acquire())))
        with serve("asgi", allow_actions=True) as client:
            assert act(client, "expire", pool).json() == {"done": "expire"}
        assert threads == [thread]
        eventually(lambda: pool.available == 0)
    finally:
        run(pool.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
