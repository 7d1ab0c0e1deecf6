"""A Postgres in a container, run by `testcontainers`."""

from __future__ import annotations

import os
import socket
from typing import Any

from ..errors import LocalLakebaseError
from .address import SUPERUSER, Address
from .server import wait_until_ready

__all__ = ["ContainerPostgres", "check_docker"]

_VERSION = 17
_HOST = "127.0.0.1"
_ENGINE = "unix:///var/run/docker.sock"
_TIMEOUT = 3
_IMAGE = f"postgres:{_VERSION}-alpine"


def check_docker() -> None:
    """
    Return if a Docker engine answers within 3 s.

    Raises:
        LocalLakebaseError: None does.
    """
    import docker
    from docker.errors import DockerException

    try:
        where = os.environ.get("DOCKER_HOST") or _ENGINE
        if where.startswith("unix://"):
            # Tried here first, since the client does not close a socket that it could not connect.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
                engine.settimeout(_TIMEOUT)
                engine.connect(where.removeprefix("unix://"))
        client = docker.from_env(timeout=_TIMEOUT)
        try:
            client.ping()
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise LocalLakebaseError(
            f"postgres='docker': no Docker engine answers ({error}). Start one, or leave the option out to run "
            "on the embedded Postgres"
        ) from error


class ContainerPostgres:
    """
    A Postgres that a Docker engine runs.

    It trusts every connection to its port, which is published on loopback only.

    Args:
        max_connections: Connections for clients.

    Raises:
        LocalLakebaseError: `testcontainers` is not installed, or no Docker engine answers.
    """

    def __init__(self, *, max_connections: int) -> None:
        try:
            from testcontainers.core.container import DockerContainer
        except ImportError as error:
            raise LocalLakebaseError(
                "postgres='docker' needs the package 'testcontainers': pip install testcontainers"
            ) from error
        check_docker()
        command = ["postgres", "-c", f"max_connections={max_connections + 4}", "-c", "superuser_reserved_connections=3"]
        container: Any = DockerContainer(_IMAGE)
        self._container = (
            container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
            .with_env("POSTGRES_USER", SUPERUSER)
            .with_command([*command, "-c", "fsync=off", "-c", "timezone=UTC"])
        )
        # The port is chosen here, since one that Docker chooses would change at a restart.
        with socket.create_server((_HOST, 0)) as free:
            self.address: Address = Address(_HOST, free.getsockname()[1])
        self._container.ports["5432/tcp"] = (_HOST, self.address.port)
        self.version = _VERSION

    def start(self) -> None:
        """Run it. Blocks until it accepts connections, and long if the image has to be fetched first."""
        self._container.start()
        wait_until_ready(self.address)

    def restart(self, *, crash: bool) -> None:
        """Restart the container, or kill it first."""
        container = self._container.get_wrapped_container()
        if crash:
            container.kill()
            container.start()
        else:
            container.restart()
        wait_until_ready(self.address)

    def stop(self) -> None:
        """Remove the container."""
        self._container.stop()
