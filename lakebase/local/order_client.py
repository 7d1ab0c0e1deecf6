"""Sends orders to the process that runs a local Lakebase. It imports nothing else, so that commands answer at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from .errors import LocalLakebaseError

__all__ = ["send_order"]


def send_order(address: str, token: str, what: str, **arguments: Any) -> dict[str, Any]:
    """
    The answer of an `OrderServer`.

    Raises:
        LocalLakebaseError: It refused, or it does not answer.
    """
    request = urllib.request.Request(  # noqa: S310
        f"{address}/{what}",
        data=json.dumps(arguments).encode(),
        headers={"Authorization": f"Bearer {token}"},
        method="POST",
    )
    # A proxy in the environment does not lead to loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        with error:
            raise LocalLakebaseError(json.load(error)["message"]) from error
    except OSError as error:
        raise LocalLakebaseError(f"the local Lakebase does not answer: {error}") from error
