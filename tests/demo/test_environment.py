"""The environment of the process does not disturb the demo, and is restored."""

import asyncio
import logging
import os
import threading
from pathlib import Path

from lakebase.cli import main
from lakebase.demo.run import quiet_about_cancelled_requests, quiet_once_cancelled


def test_the_environment_does_not_matter_and_is_restored(monkeypatch):
    monkeypatch.setenv("PGHOST", "mine.example")
    monkeypatch.setenv("PGSERVICE", "not_defined_anywhere")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    monkeypatch.setenv("PGTZ", "Nowhere/Nothing")
    before, threads = dict(os.environ), threading.active_count()
    assert main(["demo", "--quiet", "--users", "1", "--requests", "3"]) == 0
    assert dict(os.environ) == before
    assert threading.active_count() < threads + 10
    assert Path.cwd().is_dir()


async def test_what_an_interrupt_cuts_short_is_not_logged_but_an_error_is(caplog):
    begun = asyncio.Event()

    async def serve():
        with quiet_once_cancelled():
            logging.getLogger("asyncio").warning("before")
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                for name in ("asyncio", "psycopg", "lakebase"):
                    logging.getLogger(name).warning("cut short")
                logging.getLogger("asyncio").error("a real one")

    serving = asyncio.create_task(serve())
    await begun.wait()
    serving.cancel()
    await asyncio.wait({serving})
    logging.getLogger("asyncio").warning("afterwards")
    assert [record.message for record in caplog.records] == ["before", "a real one", "afterwards"]


def test_a_cancelled_request_is_no_error_of_the_app(caplog, monkeypatch):
    logger = logging.getLogger("uvicorn.error")
    # A server that ran before in this process may have set both, and those of the logger above.
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level(logging.ERROR, logger.name)
    with quiet_about_cancelled_requests():
        for error in (asyncio.CancelledError(), ValueError("a real one")):
            logger.error("%r", error, exc_info=error)
        logger.error("Traceback (most recent call last):\n  …\nasyncio.exceptions.CancelledError\n")
    logger.error("afterwards", exc_info=asyncio.CancelledError())
    assert [record.message for record in caplog.records] == ["ValueError('a real one')", "afterwards"]
