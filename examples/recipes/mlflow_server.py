"""
An agent behind MLflow's AgentServer, which calls functions and passes no request: `python mlflow_server.py --port 8000`.

`python -c 'import mlflow_server; mlflow_server.set_up()'`, as the owner of the database, makes the table once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from mlflow.genai.agent_server import AgentServer, get_request_headers, invoke, stream
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

from lakebase import AsyncLakebasePoolManager, create_lakebase_pool, request_identity
