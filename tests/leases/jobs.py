"""Jobs of `multiprocessing`: the parent has used its pool before, and each child uses the same module's."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import warnings

from pooling import PoolFactory, PoolingService, SharedBudget
from pooling.leases import FileLeases

LIMIT = 3
LOOKS = 20


def connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(os.environ["COUNTER"])))


def disconnect(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)  # says goodbye, as drivers do: a forked child has the socket open, too
    connection.close()


pool = PoolingService(
    PoolFactory.of(connect, destroy=disconnect),
    max_size=9,
    budget=SharedBudget(LIMIT, FileLeases(os.environ.get("LEASES", "."))),
)


def job(number: int) -> int:
    """Use a connection some times; the number of times."""
    for _ in range(LOOKS):
        with pool.lease(timeout=60.0) as connection:
            connection.sendall(b"x")
    return LOOKS


def main(method: str) -> None:
    """All jobs, in processes that begin by this method."""
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    job(0)
    with multiprocessing.get_context(method).Pool(4) as processes:
        done = sum(processes.map(job, range(12), chunksize=1))
    pool.stop()
    print(done)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
