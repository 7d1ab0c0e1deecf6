"""
An agent behind MLflow's AgentServer, which calls functions and hands them no request: `python mlflow_server.py`.

`python -c 'import mlflow_server; mlflow_server.set_up()'`, as the owner of the database, makes the table once.
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from mlflow.genai.agent_server import AgentServer, get_request_headers, invoke, stream
from mlflow.types.responses import (
    ResponsesAgentRequest,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
    create_text_delta,
    create_text_output_item,
)
from psycopg import AsyncConnection

from lakebase import AsyncLakebasePoolManager, UserIdentity, create_lakebase_pool
from pooling import RequestContext
from pooling.di import Container, Managed, Pooled
from pooling.web.asgi import ContainerLifespan

SCHEMA = """
    create table turns (
        id bigint generated always as identity primary key,
        owner text not null default current_user,
        question text not null,
        answer text not null
    );
    alter table turns enable row level security;
    create policy own on turns using (owner = current_user);
    grant select, insert on turns to public;
"""


def users_pool(pools: AsyncLakebasePoolManager[AsyncConnection[Any]], ctx: RequestContext) -> Any:
    return pools.for_user(ctx["identity"])


class App(Container):
    pools = Managed(AsyncLakebasePoolManager, max_total=50, stop="close_all")
    connection: Pooled[AsyncConnection[Any]] = Pooled(pools, select=users_pool)


container = App()


def as_user(step: str) -> RequestContext:
    """A request for one step of a run, with the user in the headers that the server keeps for its functions."""
    return container.request(step, identity=UserIdentity.from_headers(get_request_headers()))


async def earlier_questions() -> list[str]:
    async with as_user("read"):
        connection = await container.connection.aget()
        rows = await (await connection.execute("select question from turns order by id")).fetchall()
        return [question for (question,) in rows]


async def save(question: str, answer: str) -> None:
    async with as_user("save"):  # committed at its end
        connection = await container.connection.aget()
        await connection.execute("insert into turns (question, answer) values (%s, %s)", [question, answer])


async def tokens(question: str, earlier: list[str]) -> AsyncIterator[str]:
    """In place of the client of a language model."""
    for word in f"You said {question} after {len(earlier)} others".split():
        yield word + " "


def question_of(request: ResponsesAgentRequest) -> str:
    return str(request.input[-1].model_dump()["content"])


@stream()
async def answer_in_parts(request: ResponsesAgentRequest) -> AsyncIterator[ResponsesAgentStreamEvent]:
    question, said, item = question_of(request), "", str(uuid4())
    async for token in tokens(question, await earlier_questions()):
        said += token
        yield ResponsesAgentStreamEvent(**create_text_delta(token, item))
    await save(question, said)
    done: dict[str, Any] = {"type": "response.output_item.done", "item": create_text_output_item(said, item)}
    yield ResponsesAgentStreamEvent(**done)


@invoke()
async def answer(request: ResponsesAgentRequest) -> ResponsesAgentResponse:
    items = [event.model_dump().get("item") async for event in answer_in_parts(request)]
    return ResponsesAgentResponse(output=[item for item in items if item])


server = AgentServer("ResponsesAgent")
app = ContainerLifespan(server.app, container)


def set_up() -> None:
    """Make the table."""
    with create_lakebase_pool() as pool, pool.connection() as connection:
        connection.execute(SCHEMA)


if __name__ == "__main__":
    server.run("mlflow_server:app")
