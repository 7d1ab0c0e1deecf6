"""The demo from beginning to end: a Lakebase, an app, its users' requests, a rotated token, a graceful stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx

from lakebase import LakebasePoolConfig
from lakebase.local import LocalLakebase, LocalLakebaseError

from ._load import Client, Upload
from ._report import Report, UserReport
from ._server import Server
from ._stage import ROWS, Stage, names
from ._surroundings import surroundings
from .app import App, create_app

if TYPE_CHECKING:
    from ._screen import Screen

__all__ = ["run"]

# Connections for one user: fewer than requests at once, so that some wait for each other.
_PER_USER = 4
# Connections besides the users': two for the app, one to look on.
_OTHERS = 3
# Seconds for what should be so within milliseconds.
_PATIENCE = 3.0


def run(users: int, requests: int, screen: Screen) -> Report:
    """
    Play it all, and say how it went. Blocks; nothing is left behind, however it ends.

    Args:
        users: How many send requests.
        requests: How many all together send; three for each at least.
        screen: Where progress is shown.

    Raises:
        LocalLakebaseError: The local Lakebase could not be started.
    """
    start = monotonic()
    screen.say("starting a local Lakebase: Postgres, a gateway that takes minted tokens, a workspace API")
    # The database's own start must not meet another's settings either, as PGSERVICE.
    with surroundings({}), LocalLakebase(pooler="off") as lake:
        screen.say(f"Postgres {lake.postgres_version} at {lake.host}:{lake.port}, workspace at {lake.workspace_url}")
        with surroundings(lake.environment()), Stage(lake) as stage:
            tokens = {name: lake.add_user(name) for name in names(users)}
            rows = stage.set_up(list(tokens))
            screen.say(f"a table with row-level security: {rows} rows, {ROWS} of each of {users} users")
            report = asyncio.run(_Play(lake, stage, screen, tokens, requests).run())
    screen.say("stopped, and cleaned up")
    report.total = monotonic() - start
    return report


class _Play:
    def __init__(
        self, lake: LocalLakebase, stage: Stage, screen: Screen, tokens: dict[str, str], requests: int
    ) -> None:
        self._lake = lake
        self._stage = stage
        self._screen = screen
        self._tokens = tokens
        self._requests = requests
        self._report = Report(users=[UserReport(user) for user in tokens])

    async def run(self) -> Report:
        """All acts, then the counting."""
        report = self._report
        parts = App()
        report.budget, report.allowed = parts.limits.connections(), parts.limits.connections() + _OTHERS
        app = create_app(LakebasePoolConfig.from_env(max_size=_PER_USER), parts)
        async with Server(app) as server, self._browser(server.url) as http:
            self._screen.say(f"an app at {server.url}: one pool for each user, out of {report.budget} connections")
            roles = {await self._role_of_app(http)}
            report.threads = report.threads_before = threading.active_count()
            clients = self._clients(http)
            self._screen.begin({client.user.user: client.requests for client in clients})
            begin = monotonic()
            async with asyncio.TaskGroup() as group:
                for client in clients[1:]:
                    group.create_task(client.send(client.requests - (client is clients[-1])))
                rotation = group.create_task(self._rotate(clients[0], clients[0].requests - (len(clients) == 1)))
            report.seconds = monotonic() - begin
            roles.add(await self._role_of_app(http))
            report.pools = parts.user_pools().size + 1
            last = await self._stop(server, clients[-1])
        self._judge(roles, rotation.result(), last)
        return report

    def _browser(self, url: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(base_url=url, limits=limits, timeout=30.0, trust_env=False, verify=False)  # noqa: S501

    async def _role_of_app(self, http: httpx.AsyncClient) -> str:
        try:
            response = await http.get("/status")
            role: str = response.json()["role"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._report.failures.append(f"GET /status: {type(error).__name__}: {error}")
            return ""
        return role

    def _clients(self, http: httpx.AsyncClient) -> list[Client]:
        share, more = divmod(self._requests, len(self._tokens))
        return [
            Client(
                http,
                user,
                token=self._tokens[user.user],
                requests=share + (number < more),
                report=self._report,
                on_answer=self._on_answer,
            )
            for number, user in enumerate(self._report.users)
        ]

    def _on_answer(self, client: Client) -> None:
        self._report.threads = max(self._report.threads, threading.active_count())
        self._screen.answered(client.user.user)

    # Acts

    async def _rotate(self, client: Client, requests: int) -> str:
        """Send a user's requests, with another token from the middle on; what went wrong about that."""
        before = (requests - 1) // 2
        await client.send(before)
        upload = Upload(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(upload.run())
            await self._until(lambda: self._is_in_flight(client))
            logins = self._lake.stats().user(client.user.user).total
            client.token = await asyncio.to_thread(self._lake.add_user, client.user.user)
            client.user.tokens += 1
            self._screen.say(f"the token of {client.user.user} is rotated, with a request in flight")
            await client.send(1)
            logins_with_the_new = self._lake.stats().user(client.user.user).total - logins
            overtaken = not upload.is_answered
            upload.end()
        await client.send(requests - before - 2)
        if not overtaken or not upload.is_answered:
            return "the request in flight did not outlast the rotation"
        return "" if logins_with_the_new else "the next request came without a new login"

    async def _stop(self, server: Server, client: Client) -> str:
        """Stop the server with a request in flight; what went wrong about that."""
        upload = Upload(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(upload.run())
            await self._until(lambda: self._is_in_flight(client))
            self._screen.say("stopping the app, with a request in flight")
            await server.refuse()
            upload.end()
        await server.stop()
        return "" if upload.is_answered else "it did not"

    async def _is_in_flight(self, client: Client) -> bool:
        return await asyncio.to_thread(self._stage.is_in_transaction, client.user.user)

    async def _until(self, condition: Callable[[], Any]) -> None:
        """Return once it holds; or after a while, for the checks to say what is wrong."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while not await condition():  # noqa: ASYNC110 - it is another process's to say
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pass

    # The counting: what the server says, not what the clients believe

    def _judge(self, roles_of_app: set[str], rotation: str, stop: str) -> None:
        report, lake, users = self._report, self._lake, self._report.users
        left = self._left((*self._tokens, lake.client_id))
        stats = lake.stats()
        visits, notes = self._stage.visits(), self._stage.notes()
        for user in users:
            counted = stats.user(user.user)
            user.connections, user.minted = counted.total, counted.minted
            user.visits = visits.pop(user.user, user.visits)
        of_app = stats.user(lake.client_id)
        report.app_connections, report.app_minted, report.peak = of_app.total, of_app.minted, stats.peak

        foreign = sum(user.foreign for user in users)
        report.check("no user saw a row of another", foreign and f"{foreign} rows were seen by others than their owner")
        missing = self._requests - sum(len(user.answered) for user in users)
        report.check("every request was answered as it should be", missing and f"{missing} were not")
        strays = sum(_strays(user) for user in users) + sum(map(len, visits.values()))
        report.check(
            "the database saw each request once, as its own user's",
            strays and f"{strays} were not committed once by the user who sent them",
        )
        amiss = [user.user for user in users if notes.get(user.user, 0) != ROWS + user.written]
        report.check(
            "what was acknowledged is there, what was refused left nothing",
            amiss and f"wrong number of notes of {', '.join(amiss)}",
        )
        report.check(
            "row-level security is what kept users apart",
            len(notes) != len(users) and f"the table has rows of {len(notes)} users",
            f"the table's owner sees {sum(notes.values())} rows of {len(notes)} users",
        )
        strangers = roles_of_app - {lake.client_id}
        report.check("the app's own requests were the app's", strangers and f"they were made as {strangers}")
        report.check("a request in flight outlasted the rotation, the next one logged in anew", rotation)
        wasteful = [user.user for user in users if user.minted != user.tokens] + ["the app"] * (of_app.minted != 1)
        report.check("one credential was minted for each token", wasteful and f"not so for {', '.join(wasteful)}")
        above = stats.peak > report.allowed
        report.check("the budget was kept", above and f"{stats.peak} connections at once, above {report.allowed}")
        report.check("a request in flight outlasted the stop", stop)
        report.check("no connection was left", left and f"some of {', '.join(left)} are open")

    def _left(self, roles: Sequence[str]) -> list[str]:
        """Roles that have connections open, and still have after a while."""
        left = []
        deadline = monotonic() + _PATIENCE
        for role in roles:
            try:
                self._lake.wait_for_connections(0, role, timeout=max(deadline - monotonic(), 0.01))
            except LocalLakebaseError:
                left.append(role)
        return left


def _strays(user: UserReport) -> int:
    """Requests that were answered and did not come to the database as this user's once, or the other way round."""
    expected = dict.fromkeys(user.answered - user.refused, 1)
    return sum(user.visits.get(request, 0) != expected.get(request, 0) for request in {*expected, *user.visits})
