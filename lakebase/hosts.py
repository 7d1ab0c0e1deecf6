"""
Host names of an endpoint: direct and through the built-in pooler.

The pooler's host is the endpoint's with `-pooler` after the endpoint id, which
is the name's first label. Where the workspace can be asked, its answer wins.
"""

from __future__ import annotations

import re

__all__ = ["direct_host", "is_pooled_host", "pooled_host"]

# https://docs.databricks.com/aws/en/oltp/projects/connection-pooling
_ENDPOINT_HOST = re.compile(r"(?P<id>ep-[a-z0-9-]+?)(?P<pooler>-pooler)?(?P<rest>\.[^:/\s]+)", re.IGNORECASE)


def is_pooled_host(host: str) -> bool:
    """Whether the name is a pooler's, by the rule."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return bool(match and match["pooler"])


def pooled_host(host: str) -> str:
    """The pooler's name by the rule; a name that is no endpoint's is given back as it is."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return f"{match['id']}-pooler{match['rest']}" if match else host


def direct_host(host: str) -> str:
    """The endpoint's own name by the rule; a name that is no endpoint's is given back as it is."""
    match = _ENDPOINT_HOST.fullmatch(host)
    return f"{match['id']}{match['rest']}" if match else host
