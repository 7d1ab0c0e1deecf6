"""The Databricks workspace of a local Lakebase: its users, their tokens, and the API that mints credentials."""

from .api import WorkspaceApi
from .faults import WorkspaceFaults
from .identities import Identities
from .issuer import Issuer
from .projects import LocalEndpoint
from .users import Users

__all__ = ["Identities", "Issuer", "LocalEndpoint", "Users", "WorkspaceApi", "WorkspaceFaults"]
