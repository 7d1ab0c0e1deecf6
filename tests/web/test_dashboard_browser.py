"""The live page in a real browser: Chromium without a window, driven by playwright."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import ExitStack, contextmanager

import pytest

from pooling.web.dashboard import Dashboard
from tests.web.dashboards import ANN, BOB, held, make_pools, waiting
from tests.web.servers import Uvicorn, eventually

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; `.ci/get-chromium` installs one")

PATIENCE = 20_000  # milliseconds until an expectation counts as failed


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        started.selectors.set_test_id_attribute("id")
        playwright.expect.set_options(timeout=PATIENCE)
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open the page of a server, for a block; whatever the page writes to the console is a failure."""

    @contextmanager
    def open_page(server, **options):
        said = []
        with chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options}) as context:
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("pageerror", lambda error: said.append(str(error)))
            # A server that is away is reported by the browser itself.
            page.on("console", lambda line: None if "Failed to load resource" in line.text else said.append(line.text))
            page.goto(f"{server.url}/")
            yield page
        assert said == []

    return open_page


def serving(port=0, **options):
    return Uvicorn(Dashboard(lambda scope: True, interval=0.1, **options), port=port)


def see(page, locator):
    return playwright.expect(page.locator(locator))


def card(pools):
    return f'[data-pool="{pools.name}"]'


def test_it_loads_and_follows_what_happens(visit):
    with make_pools(max_size=1) as pools, serving(show_keys=True) as server:
        with visit(server) as page:
            see(page, "#state").to_have_text("live")
            see(page, card(pools)).to_contain_text("0 used")
            with waiting(pools, ANN):
                see(page, card(pools)).to_contain_text("1 used")
                see(page, card(pools)).to_contain_text("1 waiting")
                see(page, "#holders").to_contain_text("GET /orders/ann@corp.example")
                see(page, "#waiters").to_contain_text("thread 'waiter-1'")
                row = page.locator("#list .row", has_text=ANN)
                playwright.expect(row).to_contain_text("1/1")
                assert row.locator(".bar").get_attribute("aria-label") == "1 used, 0 opening, 0 idle, 0 closing"
            see(page, card(pools)).to_contain_text("1 idle")
            see(page, "#events").to_contain_text(f"{pools.name}: created: {ANN}")
            see(page, f"{card(pools)} .histogram rect").not_to_have_count(0)


def test_ten_thousand_keys_need_few_elements(visit):
    with make_pools(max_total=None) as pools, serving(show_keys=True) as server:
        for number in range(10_000):
            pools.pool(f"user{number:04}@corp.example")
        with visit(server) as page:
            page.locator("#pool").select_option(pools.name)
            see(page, "#count").to_have_text("10,000")
            page.locator("#sort").select_option("key")
            assert page.locator("#list .row").count() <= 100
            see(page, "#list").to_contain_text("user0000@corp.example")
            page.locator("#list").evaluate("list => { list.scrollTop = 5000 * 28; }")
            see(page, "#list").to_contain_text("user5003@corp.example")
            assert page.locator("#list .row").count() <= 100
            page.keyboard.press("/")
            page.keyboard.type("user77")
            see(page, "#count").to_have_text("100 of 10,000")
            see(page, "#list").to_contain_text("user7700@corp.example")
            assert page.locator("#list .row").count() == 80


def test_the_keyboard_is_enough(visit):
    with make_pools() as pools, held(pools, ANN), held(pools, BOB, "GET /bob"), serving(show_keys=True) as server:
        with visit(server) as page:
            see(page, card(pools)).to_contain_text("2 used")
            page.keyboard.press("/")
            page.keyboard.type("ann@")
            see(page, "#count").to_have_text(re.compile("^1 of "))
            page.keyboard.press("Enter")
            see(page, "#list .row.active").to_contain_text(ANN)
            page.keyboard.press("Enter")
            see(page, "#details").to_contain_text("GET /orders/ann@corp.example")
            page.keyboard.press("Escape")
            see(page, "#details").not_to_be_visible()
            page.keyboard.press("/")
            page.keyboard.press("Escape")
            see(page, "#list .row").not_to_have_count(1)
            page.keyboard.press("j")
            page.keyboard.press("j")
            see(page, "#list .row.active").to_have_attribute("id", "key-1")
            page.keyboard.press("Space")
            see(page, "#state").to_have_text("paused")
            page.keyboard.press("Space")
            see(page, "#state").to_have_text("live")
            page.keyboard.press("?")
            see(page, "#help").to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colour_scheme(visit, scheme):
    with make_pools() as pools, held(pools, ANN), serving() as server:
        with visit(server, viewport={"width": 400, "height": 800}, color_scheme=scheme) as page:
            see(page, card(pools)).to_contain_text("1 used")
            see(page, "#holders").to_contain_text("GET /orders/")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 400, "nothing sticks out"
            red, green, blue = map(
                int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
            )
            assert (red + green + blue < 150) == (scheme == "dark")


def test_it_survives_a_restart_of_the_server(visit):
    with make_pools() as pools, ExitStack() as stack:
        with serving(show_keys=True) as first:
            page = stack.enter_context(visit(first))
            stack.enter_context(pools.lease(BOB))
            see(page, "#events").to_contain_text(f"created: {BOB}")
        see(page, "#state").to_have_text("no connection; trying again")
        stack.enter_context(serving(port=first.port, show_keys=True))
        see(page, "#state").to_have_text("live")
        see(page, card(pools)).to_contain_text("1 used")
        stack.enter_context(pools.lease("cyd@corp.example"))
        see(page, "#events").to_contain_text("created: cyd@corp.example")
        see(page, "#events").to_contain_text("another process answers now")
        page.close()


def test_actions_are_there_if_they_are_allowed_and_are_confirmed(visit):
    with make_pools() as pools, pools.lease(ANN):
        with serving() as server:
            with visit(server) as page:
                see(page, card(pools)).to_contain_text("1 used")
                assert page.locator("[data-action], .buttons button:visible").count() == 0
        with serving(allow_actions=True, show_keys=True) as server:
            with visit(server) as page:
                page.locator("#list .row", has_text=ANN).click()
                button = page.locator("#details [data-action=suspend]")
                button.click()
                see(page, "#details [data-sure]").to_have_text("Sure? suspend")
                assert pools.pool(ANN).is_running
                button.click()
                see(page, "#details").not_to_be_visible()
                eventually(lambda: not pools.pool(ANN).is_running)
                playwright.expect(page.locator("#list .row", has_text=ANN)).to_contain_text("suspended")
                see(page, "#events").to_contain_text("suspend, from the live page")


def test_what_a_user_is_called_is_text_and_not_code(visit):
    name = '<img src=x onerror="document.title=1">'
    with make_pools() as pools, held(pools, name, f"GET /{name}"), serving(show_keys=True) as server:
        with visit(server) as page:
            see(page, "#list").to_contain_text(name)
            see(page, "#holders").to_contain_text(name)
            assert page.locator("main img").count() == 0
            assert page.title() == "Pools"
