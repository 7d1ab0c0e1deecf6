"""The demo's clients: they send requests as users of the app, and judge every answer."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import httpx

from .dataset import ROWS

if TYPE_CHECKING:
    from .report import Report, UserReport

__all__ = ["Client", "Unexpected", "Upload"]

_AT_ONCE = 8
_TOO_LONG = "x" * 201


class Unexpected(Exception):  # noqa: N818
    """The answer is not as expected."""


class Client:
    """
    One user's browser. It has several requests under way at once.

    Args:
        http: Sends the requests.
        user: The user, and the user's counts.
        token: The user's workspace token; replaced when it is rotated.
        requests: How many requests it will send.
        report: Where failures and times are noted.
        on_answer: Called with this client after each answer.
        pause: Seconds at most between two requests.
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
        pause: float = 0.0,
    ) -> None:
        self.user = user
        self.token = token
        self.requests = requests
        self.http = http
        self._report = report
        self._on_answer = on_answer
        self._pause = pause
        self._sent = 0

    @property
    def at_once(self) -> int:
        """Most requests that it has under way at once."""
        return min(_AT_ONCE, self.requests)

    async def send(self, count: int) -> None:
        """Send that many requests, several at once, of all kinds; return when all are answered."""
        left = iter(range(count))

        async def send_in_turn() -> None:
            for _ in left:
                await self._send_one()
                if self._pause:
                    await asyncio.sleep(random.uniform(0.0, self._pause))  # noqa: S311 - no secret

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, count)):
                group.create_task(send_in_turn())

    async def _send_one(self) -> None:
        kind = self._sent % 10
        if kind == 3:
            await self._request("POST", self._expect_added, texts=["one more"])
        elif kind == 6:
            # The second note is too long, so the first one must not be kept either.
            await self._request("POST", self._expect_refused, texts=["half a story", _TOO_LONG])
        elif kind == 8:
            await self._request("GET", self._expect_notes, path="/stream")
        else:
            await self._request("GET", self._expect_notes)

    async def _request(
        self, method: str, expect: Callable[[httpx.Response, str], None], *, path: str = "", **body: Any
    ) -> None:
        request = self.new_id()
        begin = monotonic()
        try:
            response = await self.http.request(
                method, f"/notes{path}", headers=self.headers(request), json=body or None
            )
            self._report.latencies.append(monotonic() - begin)
            expect(response, request)
        except (httpx.HTTPError, Unexpected, ValueError, KeyError) as error:
            self.failed(request, f"{method} /notes{path}: {type(error).__name__}: {error}")

    def new_id(self) -> str:
        """The id of the next request."""
        self._sent += 1
        self._report.asked += 1
        return f"{self.user.user}/{self._sent}"

    def headers(self, request: str) -> dict[str, str]:
        """The headers that the proxy of Databricks Apps adds."""
        return {
            "X-Forwarded-Email": self.user.user,
            "X-Forwarded-Access-Token": self.token,
            "X-Request-Id": request,
        }

    def answered(self, request: str) -> None:
        """Count a request that was answered as expected."""
        self.user.answered.add(request)
        self._on_answer(self)

    def failed(self, request: str, why: str) -> None:
        """Count a request that was not."""
        self._report.failures.append(f"{request}: {why}")
        self._on_answer(self)

    # What is expected of an answer

    def _expect_notes(self, response: httpx.Response, request: str) -> None:
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

    def _expect_added(self, response: httpx.Response, request: str) -> None:
        _expect(response, 201)
        self.user.written += 1
        self.answered(request)

    def _expect_refused(self, response: httpx.Response, request: str) -> None:
        _expect(response, 422)
        self.user.refused.add(request)
        self.answered(request)


class Upload:
    """A request that stays in flight until `end` is called: before that, its body is not sent completely."""

    LINES = ("begun", "and ended")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._request = client.new_id()
        self._may_end = asyncio.Event()
        self.is_answered: bool = False

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
        """Send the rest of the body."""
        self._may_end.set()


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        raise Unexpected(f"answered {response.status_code} instead of {status}: {response.text[:200]}")
