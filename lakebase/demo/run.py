"""The demo from beginning to end: a Lakebase, its data, an app, the load, and the checks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import httpx

from lakebase import LakebasePoolConfig
from lakebase.local import LocalLakebase

from .app import App, create_app
from .checks import check_everything
from .dataset import ROWS, Dataset, user_names
from .environment import app_environment
from .load import Load
from .report import Report, UserReport
from .server import Server
from .watch import PAGE, mount_page, open_page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .screen import Screen

__all__ = ["run"]

# Connections for one user: fewer than requests at once, so that some wait for each other.
_PER_USER = 4
# Of those that a request passes through.
_LOGGERS = ("asyncio", "psycopg", "lakebase", "pooling")
# Seconds at most between two requests of a client that is watched.
_WATCHED_PAUSE = 0.4
# Connections besides the users': two for the app, one for the dataset.
_OTHERS = 3


def run(users: int, requests: int, screen: Screen, *, is_watched: bool = False) -> Report:
    """
    Run the demo and return its report. Blocks; nothing is left behind, however it ends.

    Args:
        users: How many users send requests.
        requests: How many requests they send together; at least three for each user.
        screen: Where progress is shown.
        is_watched: Whether to serve the live page and open it in a browser. Clients then pause between requests.

    Raises:
        LocalLakebaseError: The local Lakebase could not be started.
    """
    start = monotonic()
    screen.say("starting a local Lakebase: Postgres, a gateway that takes minted tokens, a workspace API")
    # Settings for another database, such as PGSERVICE, would also disturb the start of this one.
    with app_environment({}), LocalLakebase(pooler="off") as lake:
        screen.say(f"Postgres {lake.postgres_version} at {lake.host}:{lake.port}, workspace at {lake.workspace_url}")
        with app_environment(lake.environment()), Dataset(lake) as dataset:
            tokens = {name: lake.add_user(name) for name in user_names(users)}
            rows = dataset.create(list(tokens))
            screen.say(f"a table with row-level security: {rows} rows, {ROWS} of each of {users} users")
            report = Report(users=[UserReport(user) for user in tokens], requests=requests)
            with quiet_about_cancelled_requests():
                asyncio.run(_serve(lake, dataset, tokens, report, screen, is_watched=is_watched))
            check_everything(report, lake, dataset)
    screen.say("stopped, and cleaned up")
    report.total = monotonic() - start
    return report


@contextmanager
def quiet_once_cancelled() -> Iterator[None]:
    """
    Once the current task is cancelled, as by Ctrl-C, log errors only.

    Each request that is cut short is worth a warning to the loop, the driver or the pool, and none to who cut it.
    """
    task = asyncio.current_task()
    assert task is not None

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or not task.cancelling()

    with _filtered(_LOGGERS, is_wanted):
        yield


@contextmanager
def quiet_about_cancelled_requests() -> Iterator[None]:
    """
    Log no cancellation as an error.

    A second Ctrl-C cancels every request and the app's lifespan, and uvicorn logs a traceback for each: of a request as
    an exception, of the lifespan as a text.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        if record.exc_info:
            return not isinstance(record.exc_info[1], asyncio.CancelledError)
        return not record.getMessage().rstrip().endswith(asyncio.CancelledError.__name__)

    with _filtered(["uvicorn.error"], is_wanted):
        yield


@contextmanager
def _filtered(names: Iterable[str], is_wanted: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Have these loggers drop what is not wanted."""
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)


async def _serve(
    lake: LocalLakebase,
    dataset: Dataset,
    tokens: Mapping[str, str],
    report: Report,
    screen: Screen,
    *,
    is_watched: bool,
) -> None:
    """Serve the app while it is under load, and stop it."""
    container = App()
    report.budget = container.limits.connections()
    report.allowed = report.budget + _OTHERS
    app = create_app(LakebasePoolConfig.from_env(max_size=_PER_USER), container)
    if is_watched:
        mount_page(app)
    with quiet_once_cancelled():
        async with Server(app) as server, _http_client(server.url) as http:
            screen.say(f"an app at {server.url}: one pool for each user, out of {report.budget} connections")
            if is_watched:
                screen.say(f"the live page: {server.url}{PAGE}; in a terminal: lakebase top {server.url}{PAGE}")
                await open_page(server.url)
            pause = _WATCHED_PAUSE if is_watched else 0.0
            load = Load(lake, dataset, http, tokens, report=report, screen=screen, pause=pause)
            await load.ask_role_of_app()
            await load.send()
            await load.ask_role_of_app()
            report.pools = container.user_pools().size + 1
            await load.stop(server)


def _http_client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=30.0, trust_env=False, verify=False)  # noqa: S501
