"""The port: reserved while the local Lakebase runs, and free afterwards."""

import asyncio
import socket

import psycopg
import pytest

from lakebase.local import LocalLakebase, LocalLakebaseError
from lakebase.local.gateway import Listener
from tests.local.clients import connection_settings, refusal
from tests.local.owner import children_of_this_process, temporary_directories


def test_the_port_stays_reserved_while_it_does_not_listen(lake, settings):
    import socket

    with lake.refuse(), socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind((lake.host, lake.port))
        refusal(settings)


def test_opened_twice_at_once_and_shut_twice_it_refuses():
    async def play():
        listener = Listener("127.0.0.1", 0)
        try:
            await asyncio.gather(*(listener.open(asyncio.Protocol) for _ in range(2)))
            await asyncio.gather(*(listener.shut() for _ in range(2)))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(listener.host, listener.port)
        finally:
            listener.close()

    asyncio.run(play())


def test_a_taken_port_is_named_and_nothing_stays(own_tempdir):
    running = children_of_this_process()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalLakebaseError, match=rf"cannot listen on 127.0.0.1:{port}.*port="):
            LocalLakebase(port=port).start()
    assert (children_of_this_process(), temporary_directories()) == (running, set())


@pytest.mark.parametrize("state", ["listening", "refusing", "waking"])
def test_the_port_of_another_local_lakebase_is_taken_even_if_that_does_not_listen(own_tempdir, state):
    with LocalLakebase(pooler="off") as one:
        if state == "refusing":
            one.refuse()
        elif state == "waking":
            one.suspend(wake_after=None, while_waking="refused")
        with pytest.raises(LocalLakebaseError, match=rf"cannot listen on 127.0.0.1:{one.port}.*port="):
            LocalLakebase(port=one.port, pooler="off").start()
        one.clear_faults()
        psycopg.connect(**connection_settings(one, one.admin_user)).close()


def test_a_port_is_free_again_as_soon_as_its_local_lakebase_has_stopped(own_tempdir):
    with LocalLakebase(pooler="off") as lake:
        port = lake.port
        psycopg.connect(**connection_settings(lake, lake.admin_user)).close()
    with LocalLakebase(port=port, pooler="off") as lake:
        psycopg.connect(**connection_settings(lake, lake.admin_user)).close()
