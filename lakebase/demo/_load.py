"""The demo's clients: they send requests as users of the app, and judge every answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx

from ._stage import ROWS

if TYPE_CHECKING:
    from ._report import Report, UserReport

__all__ = ["Client", "Unexpected", "Upload"]

_AT_ONCE = 8
_TOO_LONG = "x" * 201
_TIMEOUT = 30.0


class Unexpected(Exception):  # noqa: N818
    """The answer is not what it should be."""


class Client:
    """
    One user's browser, so to speak; many of its requests are under way at once.

    Args:
        http: Where to send.
        user: Who asks, and where it is counted.
        token: The user's workspace token; replaced when it is rotated.
        requests: How many it will send.
        report: Where failures and times are noted.
        on_answer: Called with this client after each answer.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        user: UserReport,
        *,
        token: str,
        requests: int,
        report: Report,
        on_answer: Callable[[Client], None],
    ) -> None:
        self.user = user
        self.token = token
        self.requests = requests
        self.http = http
        self._report = report
        self._on_answer = on_answer
        self._sent = 0

    async def send(self, count: int) -> None:
        """Send so many requests, several at once, of all kinds; return when all are answered."""
        left = iter(range(count))

        async def one_after_the_other() -> None:
            for _ in left:
                await self._one()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, count)):
                group.create_task(one_after_the_other())

    async def _one(self) -> None:
        kind = self._sent % 10
        if kind == 3:
            await self._judged("POST", self._add, texts=["one more"])
        elif kind == 6:
            # The first is fine; the second is not, and must take the first along.
            await self._judged("POST", self._refused, texts=["half a story", _TOO_LONG])
        elif kind == 8:
            await self._judged("GET", self._listed, path="/stream")
        else:
            await self._judged("GET", self._listed)

    async def _judged(
        self, method: str, judge: Callable[[httpx.Response, str], None], *, path: str = "", **body: Any
    ) -> None:
        request = self.new_id()
        begin = monotonic()
        try:
            response = await self.http.request(
                method, f"/notes{path}", headers=self.headers(request), json=body or None
            )
            self._report.latencies.append(monotonic() - begin)
            judge(response, request)
        except (httpx.HTTPError, Unexpected, ValueError, KeyError) as error:
            self.failed(request, f"{method} /notes{path}: {type(error).__name__}: {error}")

    def new_id(self) -> str:
        """The id of the next request."""
        self._sent += 1
        self._report.asked += 1
        return f"{self.user.user}/{self._sent}"

    def headers(self, request: str) -> dict[str, str]:
        """As the proxy of Databricks Apps adds them."""
        return {
            "X-Forwarded-Email": self.user.user,
            "X-Forwarded-Access-Token": self.token,
            "X-Request-Id": request,
        }

    def answered(self, request: str) -> None:
        """Count a request that got the answer it should get."""
        self.user.answered.add(request)
        self._on_answer(self)

    def failed(self, request: str, why: str) -> None:
        """Count a request that did not."""
        self._report.failures.append(f"{request}: {why}")
        self._on_answer(self)

    # What an answer should be

    def _listed(self, response: httpx.Response, request: str) -> None:
        _expect(response, 200)
        if response.headers["content-type"].startswith("application/x-ndjson"):
            rows = [json.loads(line) for line in response.text.splitlines()]
        else:
            rows = response.json()
        foreign = sum(row["owner"] != self.user.user for row in rows)
        self.user.rows += len(rows)
        self.user.foreign += foreign
        if len(rows) - foreign < ROWS:
            raise Unexpected(f"{len(rows) - foreign} rows of the user's own, which has {ROWS} or more")
        self.answered(request)

    def _add(self, response: httpx.Response, request: str) -> None:
        _expect(response, 201)
        self.user.written += 1
        self.answered(request)

    def _refused(self, response: httpx.Response, request: str) -> None:
        _expect(response, 422)
        self.user.refused.add(request)
        self.answered(request)


class Upload:
    """A request that stays in flight until it is let go: its body is not sent to the end before that."""

    LINES = ("begun", "and ended")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._request = client.new_id()
        self._may_end = asyncio.Event()
        self.is_answered = False

    async def run(self) -> None:
        """Send it; return when it is answered."""
        client = self._client
        try:
            response = await client.http.put("/notes", content=self._body(), headers=client.headers(self._request))
            _expect(response, 200)
            if response.json() != {"added": len(self.LINES)}:
                raise Unexpected(f"answered {response.text[:200]}")
        except (httpx.HTTPError, Unexpected, ValueError) as error:
            client.failed(self._request, f"PUT /notes: {type(error).__name__}: {error}")
        else:
            client.user.written += len(self.LINES)
            self.is_answered = True
            client.answered(self._request)

    async def _body(self) -> AsyncIterator[bytes]:
        yield f"{self.LINES[0]}\n".encode()
        await self._may_end.wait()
        yield self.LINES[1].encode()

    def end(self) -> None:
        """Let it send the rest."""
        self._may_end.set()


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        raise Unexpected(f"answered {response.status_code} instead of {status}: {response.text[:200]}")
