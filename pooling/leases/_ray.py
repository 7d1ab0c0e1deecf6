"""
Leases in Ray: one named actor of the cluster keeps the books of all budgets, by its own clock.

Nothing here imports Ray: who is connected to a cluster has imported it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import socket
import sys
import time
from math import inf
from typing import Any

from .._backends.fork import call_in_child
from .._engine.lease_book import Answer, Claim, LeaseBook
from ..errors import ConfigurationError
from ..extras import install_command
from ..locks import make_lock
from ._store import LeaseSession, LeaseStore, StoreError

TIMEOUT = 5.0  # seconds for the answer of an actor that has answered before
START_TIMEOUT = 30.0  # seconds for the first answer: Ray may have to start a process for the actor
MOST_PROCESSES = 10_000  # that may wait for their bells at once; Ray's own limit for an actor is 1,000
MARKS = b"pooling-leases"  # where the cluster keeps the names of the actors that it has had


class RayLeases(LeaseStore):
    """
    Leases in a Ray cluster, for its tasks, actors and Serve replicas on all nodes: no other service is needed.

    The first process that needs a place creates a named, detached actor, which uses no CPU of the cluster; all others
    find it. It outlives jobs, and Ray starts it anew when it or its node fails. It then does not know who has places:
    so for `lease_ttl` it gives further ones only to processes that still have some, as does one that is created after
    another was killed. The limit ends at the cluster: two clusters share none.

    Each process needs a connection to Ray before its first place, as tasks and actors have; elsewhere call
    `ray.init()`. A process forked from a connected one has none. This package must be installed where the actor runs.

    Args:
        name: Of the actor.
        namespace: Of its name. Ray gives each job an own one by default, in which other jobs would not find it.

    Raises:
        ConfigurationError: Ray is not installed, or a name is empty.
    """

    def __init__(self, name: str = "pooling-leases", *, namespace: str = "pooling") -> None:
        for field, value in (("name", name), ("namespace", namespace)):
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{field}={value!r}: expected a text that is not empty", field=field)
        if "ray" not in sys.modules and importlib.util.find_spec("ray") is None:
            raise ConfigurationError(
                f"RayLeases needs Ray, which is not installed: {install_command('ray')}", field="store"
            )
        self.name = name
        self.namespace = namespace

    def open(self, holder: str, budget: str) -> LeaseSession:
        return RaySession(self.name, self.namespace, holder, budget)

    def __repr__(self) -> str:
        return f"RayLeases({self.name!r}, namespace={self.namespace!r})"


class RaySession(LeaseSession):
    """What one process has to do with the actor."""

    can_hear = True

    def __init__(self, name: str, namespace: str, holder: str, budget: str) -> None:
        self._name = name
        self._namespace = namespace
        self._holder = holder
        self._budget = budget
        self._actor: Any = None  # its handle, once it has answered
        self._bell: Bell | None = None
        self._is_listening = False

    def exchange(self, claim: Claim) -> Answer | None:
        try:
            return self._ask(connected_ray(), claim)
        except SystemExit as error:  # what Ray raises in threads that wait for it when it is shut down
            raise StoreError("the connection to Ray was closed during a claim") from error

    def _ask(self, ray: Any, claim: Claim) -> Answer | None:
        actor, self._actor = self._actor, None
        timeout = TIMEOUT
        if actor is None:
            actor, timeout = self._find_or_create(ray), START_TIMEOUT
        answer = ray.get(actor.exchange.remote(self._budget, tuple(claim)), timeout=timeout)
        self._actor = actor
        if not self._is_listening:
            self._listen(actor)
        return None if answer is None else Answer(*answer)

    def _find_or_create(self, ray: Any) -> Any:
        options = {
            "name": self._name,
            "namespace": self._namespace,
            "get_if_exists": True,  # of several that create it at once, all get the same
            "lifetime": "detached",
            "max_restarts": -1,
            "num_cpus": 0,
            "max_concurrency": MOST_PROCESSES,
        }
        return ray.remote(LeaseActor).options(**options).remote(f"{self._namespace}/{self._name}")

    def _listen(self, actor: Any) -> None:
        """Have the bell ring as soon as the actor rings this process, or is gone."""
        if self._bell is None:
            self._bell = Bell()
        actor.wait_for_bell.remote(self._budget, self._holder).future().add_done_callback(self._bell.ring)
        self._is_listening = True

    def bell(self) -> int | None:
        return None if self._bell is None else self._bell.fileno()

    def hear(self) -> bool:
        if self._bell is None or not self._bell.has_rung():
            return False
        self._is_listening = False  # until the next claim has been answered
        return True

    def close(self) -> None:
        self._actor = None  # the process may connect to another cluster before it needs places again
        self._is_listening = False
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    def abandon(self) -> None:
        self.close()


class Bell:
    """A file descriptor that can be read after `ring`, which any thread may call."""

    def __init__(self) -> None:
        self._lock = make_lock()  # else `ring` might write to a file that got the number of the closed socket
        self._ear, self._clapper = socket.socketpair()
        for end in (self._ear, self._clapper):
            end.setblocking(False)

    def fileno(self) -> int:
        return self._ear.fileno()

    def ring(self, _: object = None) -> None:
        with self._lock:
            try:
                self._clapper.send(b"!")
            except OSError:  # it is closed, or was rung often
                pass

    def has_rung(self) -> bool:
        try:
            return bool(self._ear.recv(4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        with self._lock:
            self._ear.close()
            self._clapper.close()


class LeaseActor:
    """
    What runs in the actor: the books of all budgets, and the bells of their holders.

    Args:
        name: Of the actor, with its namespace.
    """

    def __init__(self, name: str) -> None:
        self._began_at = -inf if is_first_of_its_name(name) else time.monotonic()
        self._books: dict[str, LeaseBook] = {}
        self._bells: dict[str, dict[str, asyncio.Event]] = {}

    async def exchange(self, budget: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Enter a claim; returns the fields of the answer."""
        claim, now = Claim(*values), time.monotonic()
        book = self._books.get(budget)
        if book is None:
            # Of a book that an earlier actor had, no lease goes on once this one has been there for a ttl.
            book = self._books[budget] = LeaseBook(is_new=now - self._began_at >= claim.ttl)
        answer = book.exchange(claim, now)
        bells = self._bells.setdefault(budget, {})
        for holder in bells.keys() - book.holders.keys():
            bells.pop(holder).set()  # so that nothing waits for a process that has ended
        if answer is None:
            return None
        for holder in answer.ring:
            bells.setdefault(holder, asyncio.Event()).set()
        return tuple(answer)

    async def wait_for_bell(self, budget: str, holder: str) -> None:
        """Return once another process has rung this holder, also before this call; or once it is no holder."""
        book = self._books.get(budget)
        if book is not None and holder in book.holders:
            bell = self._bells[budget].setdefault(holder, asyncio.Event())
            await bell.wait()
            bell.clear()


def is_first_of_its_name(name: str) -> bool:
    """Whether the cluster has had no actor of this name before; it has this one from now on."""
    try:
        # It has no name without an underscore. Nothing else outlives an actor that is killed for good.
        put = importlib.import_module("ray.experimental.internal_kv")._internal_kv_put
    except (ImportError, AttributeError):  # another version of Ray: it may have been there
        return False
    return not put(name.encode(), b"", overwrite=False, namespace=MARKS)


_is_forked = False  # from a process that was connected


def connected_ray() -> Any:
    """
    Return the module `ray`, if this process is connected to a cluster: else Ray would start one of its own here.

    Raises:
        ConfigurationError: It is not.
    """
    ray: Any = sys.modules.get("ray")
    if _is_forked:
        raise ConfigurationError(
            "this process was forked from one that is connected to Ray, where Ray does not work: begin processes with "
            "multiprocessing's spawn, or as tasks and actors of Ray",
            field="store",
        )
    if ray is None or not ray.is_initialized():
        raise ConfigurationError(
            "this process is not connected to Ray: call ray.init(), or ray.init(address=...) for a cluster that runs, "
            "before the first acquisition",
            field="store",
        )
    return ray


def _note_fork() -> None:
    global _is_forked  # noqa: PLW0603 - of the process
    ray: Any = sys.modules.get("ray")
    _is_forked = _is_forked or (ray is not None and bool(ray.is_initialized()))


call_in_child(_note_fork)
