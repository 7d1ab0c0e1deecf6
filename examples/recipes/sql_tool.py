"""An MCP server with one tool, SQL under the rights of the user who asks: `uvicorn sql_tool:app`."""

import psycopg
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from lakebase import AsyncLakebasePoolManager, IdentityError, UserIdentity, aread_only_query
from pooling.di import Container, Managed
from pooling.web.asgi import ContainerLifespan


class App(Container):
    pools = Managed(AsyncLakebasePoolManager, max_total=50, stop="close_all")


container = App()
server = MCPServer("database")


@server.tool()
async def query(sql: str, ctx: Context) -> str:
    """Run one SELECT of PostgreSQL and return its columns and rows as JSON."""
    try:
        identity = UserIdentity.from_headers(ctx.headers or {})
        return (await aread_only_query(container.pools().for_user(identity), sql)).to_json()
    except (psycopg.Error, IdentityError) as error:
        raise ToolError(str(error)) from error  # the model reads what is wrong, and tries again


app = ContainerLifespan(server.streamable_http_app(stateless_http=True), container)
