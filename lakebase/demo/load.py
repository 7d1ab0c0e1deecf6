"""The load of the demo: many requests of all users, one rotated token, and a stop with a request in flight."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import TYPE_CHECKING

import httpx

from .client import Client, Upload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lakebase.local import LocalLakebase

    from .dataset import Dataset
    from .report import Report
    from .screen import Screen
    from .server import Server

__all__ = ["Load"]

# Seconds to wait for a request to reach the database. When they are over, the demo goes on and a check fails.
_TIMEOUT = 10.0


class Load:
    """
    Sends the requests of all users.

    Args:
        lake: The workspace, where a token is rotated.
        dataset: The database, where requests in flight are seen.
        http: The client of the app.
        tokens: The workspace token of each user.
        report: Where results are noted.
        screen: Where progress is shown.
        pause: Seconds at most between two requests of a client.
    """

    def __init__(
        self,
        lake: LocalLakebase,
        dataset: Dataset,
        http: httpx.AsyncClient,
        tokens: Mapping[str, str],
        *,
        report: Report,
        screen: Screen,
        pause: float = 0.0,
    ) -> None:
        self._lake = lake
        self._dataset = dataset
        self._http = http
        self._report = report
        self._screen = screen
        share, more = divmod(report.requests, len(tokens))
        self._clients = [
            Client(
                http,
                user,
                token=tokens[user.user],
                requests=share + (number < more),
                report=report,
                on_answer=self._on_answer,
                pause=pause,
            )
            for number, user in enumerate(report.users)
        ]
        report.at_once = sum(client.at_once for client in self._clients)

    async def ask_role_of_app(self) -> None:
        """Note the role under which the app itself connects."""
        try:
            response = await self._http.get("/status")
            self._report.app_roles.add(response.json()["role"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._report.failures.append(f"GET /status: {type(error).__name__}: {error}")

    async def send(self) -> None:
        """Send all requests but the last one, and rotate the first user's token in the middle."""
        clients, report = self._clients, self._report
        report.threads = report.threads_before = threading.active_count()
        self._screen.begin({client.user.user: client.requests for client in clients})
        begin = monotonic()
        async with asyncio.TaskGroup() as group:
            for client in clients[1:]:
                group.create_task(client.send(client.requests - (client is clients[-1])))
            group.create_task(self._rotate(clients[0], clients[0].requests - (len(clients) == 1)))
        report.seconds = monotonic() - begin

    async def stop(self, server: Server) -> None:
        """Stop the app while the last request is in flight, and note whether that request was answered."""
        client = self._clients[-1]
        upload = Upload(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(upload.run())
            await self._wait_until_in_flight(client)
            self._screen.say("stopping the app, with a request in flight")
            await server.refuse()
            upload.end()
        await server.stop()
        self._report.stop_problem = "" if upload.is_answered else "it did not"

    async def _rotate(self, client: Client, requests: int) -> None:
        before = (requests - 1) // 2
        await client.send(before)
        upload = Upload(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(upload.run())
            await self._wait_until_in_flight(client)
            logins = self._lake.stats().user(client.user.user).total
            client.token = await asyncio.to_thread(self._lake.add_user, client.user.user)
            client.user.tokens += 1
            self._screen.say(f"the token of {client.user.user} is rotated, with a request in flight")
            await client.send(1)
            has_new_login = self._lake.stats().user(client.user.user).total > logins
            was_in_flight = not upload.is_answered
            upload.end()
        await client.send(requests - before - 2)
        if not was_in_flight or not upload.is_answered:
            self._report.rotation_problem = "the request in flight did not outlast the rotation"
        elif not has_new_login:
            self._report.rotation_problem = "the next request came without a new login"

    async def _wait_until_in_flight(self, client: Client) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                while not await asyncio.to_thread(self._dataset.is_in_transaction, client.user.user):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pass  # the checks say what is wrong

    def _on_answer(self, client: Client) -> None:
        self._report.threads = max(self._report.threads, threading.active_count())
        self._screen.add_answer(client.user.user)
