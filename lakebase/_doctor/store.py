"""The store of a `SharedBudget`: whether it can be reached, what leases need of it, and how long an answer takes."""

from __future__ import annotations

import os
import re
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pooling.errors import ConfigurationError
from pooling.extras import install_command
from pooling.leases import FileLeases, PostgresLeases, RedisLeases

from .._session_settings import quoted_name
from .facts import Facts, first_line, skipped
from .finding import Finding, Fix, Verdict
from .relations import find_relation, parse_name
from .statements import as_sql

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["check_store", "has_password", "judged_server", "store_problem", "unfit_server"]

_NAME = "store"
_ROUNDS = 5
_SLOW = 0.05
#: File systems whose locks reach over hosts slowly or not at all.
_NETWORK = re.compile(r"nfs\d?|cifs|smb\d?|9p|ceph|lustre|glusterfs|fuse\..*|beegfs|afs")
_TABLE = "pooling_leases"
_POSTGRES = re.compile(r"postgres(?::(?P<table>[^/].*))?")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_OLDEST_REDIS = 5
#: What a script may not do is an error of the script's, in words that differ by release.
_REFUSED = re.compile(r"WRONGPASS|ACL failure|user executing the script")


def store_problem(store: str) -> str | None:
    """Why the text of a store cannot be used, in words that do not repeat it; `None` if it can."""
    if _POSTGRES.fullmatch(store):
        return None
    has_scheme = "://" in store or ":" in store.partition("/")[0]
    if has_scheme and not store.startswith(tuple(f"{scheme}://" for scheme in _REDIS_SCHEMES)):
        return (
            "it has a scheme that is none of redis://, rediss:// and unix://; for the Lakebase itself: postgres or "
            "postgres:TABLE; for a directory with a colon in its name: its path from / or ./ on"
        )
    try:
        urlsplit(store)
    except ValueError:  # whose text may have a part of the password
        return "it is no URL"
    return None if store else "it is empty"


def has_password(store: str) -> bool:
    """Whether the text of a store has a password in it, also where it is no URL after all."""
    return "://" in store and ("@" in store or "password=" in store)


def check_store(facts: Facts) -> Finding | list[Finding]:
    """The store, by its kind."""
    store = facts.asked.store
    if store is None:
        return []
    if (match := _POSTGRES.fullmatch(store)) is not None:
        return _postgres(facts, match["table"] or _TABLE)
    if "://" in store:
        return _redis(store)
    return _files(facts, Path(store))


# Files


def _files(facts: Facts, directory: Path) -> Finding:
    shown = f"the directory {directory}"
    make = Fix("shell", f"install -d -m 700 {shlex.quote(str(directory))}", "as the user that the app runs as")
    try:
        FileLeases(directory)
    except ConfigurationError as error:
        return Finding(_NAME, Verdict.FAILED, f"{shown}: {error}", "give another one, or make it", (make,))
    if facts.config.replicas > 1:
        return Finding(
            _NAME,
            Verdict.FAILED,
            f"{shown} is shared by the processes of one host, and there are {facts.config.replicas} replicas",
            "share the limit by Redis or by a table: --store redis://HOST:6379/0, or --store postgres",
        )
    there = directory if directory.exists() else directory.absolute().parent
    if not os.access(there, os.W_OK | os.X_OK):
        owner = there.stat().st_uid
        found = f"{there} is of user {owner}, and user {os.geteuid()} may not write there"
        return Finding(_NAME, Verdict.FAILED, found, "give another one, or have its owner make it", (make,))
    if kind := _network_file_system(there):
        found = f"{shown} is on {kind}, whose locks are not this host's"
        return Finding(_NAME, Verdict.WARNING, found, "take a directory on a disk of this host", (make,))
    if there is not directory:
        return Finding(_NAME, Verdict.OK, f"{shown} does not exist; the first process makes it")
    took = _median(lambda: _lock_a_file(directory))
    found = f"{shown}: a file is locked in {took * 1000:.1f} ms"
    if Path(tempfile.gettempdir()) in directory.absolute().parents:
        advice = "if that is cleaned while processes run, they are forgotten: take a directory that is the app's"
        return Finding(_NAME, Verdict.NOTE, f"{found}; it is below {tempfile.gettempdir()}", advice)
    return Finding(_NAME, Verdict.OK, found)


def _lock_a_file(directory: Path) -> None:
    import fcntl

    with tempfile.TemporaryFile(dir=directory) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _network_file_system(directory: Path) -> str:
    """The kind of a network's file system that a directory is on; empty for one of this host, or if it is unknown."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    path, kind, longest = directory.resolve(), "", -1
    for line in lines:
        _, mount, its_kind, *_ = line.split(" ")
        place = Path(mount.replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= longest:
            kind, longest = its_kind, len(place.parts)
    return kind if _NETWORK.fullmatch(kind) else ""


# Redis


def _redis(url: str) -> Finding:
    parts = urlsplit(url)
    try:
        RedisLeases(url)
        from redis import Redis, exceptions

        where = parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
    except ImportError:
        fix = Fix("shell", install_command("redis"))
        return Finding(_NAME, Verdict.FAILED, "the package 'redis' is missing", "install it", (fix,))
    except ConfigurationError as error:
        return Finding(_NAME, Verdict.FAILED, str(error))
    client = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    try:
        return _redis_server(client, where)
    except exceptions.RedisError as error:
        is_refusal = isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError))
        if is_refusal or _REFUSED.search(str(error)):
            found = f"{where} refuses this user: {_words(error, parts.password)}"
            fixes = (_redis_user(parts.username or "default"),)
            return Finding(_NAME, Verdict.FAILED, found, "check its password, and allow it what leases need", fixes)
        found = f"{where}: {type(error).__name__}: {_words(error, parts.password)}"
        address = f"{parts.scheme}://{where}" if parts.scheme == "unix" else f"{parts.scheme}://{where}{parts.path}"
        fix = Fix("shell", f"redis-cli -u {shlex.quote(address)} ping", "to try it from here")
        return Finding(_NAME, Verdict.FAILED, found, "check the address, and that this network may reach it", (fix,))
    finally:
        client.close()


def _redis_server(client: Redis, where: str) -> Finding:
    client.ping()
    info: dict[str, Any] = client.info()
    finding = unfit_server(info, where)
    if finding is not None:
        return finding
    _use_like_leases(client)
    return judged_server(info, where, _median(client.ping))


def unfit_server(info: Mapping[str, Any], where: str) -> Finding | None:
    """Why a Redis server cannot keep leases, by its `INFO`; `None` if it can."""
    found = f"{_server_name(info)} at {where}"
    if int(str(info.get("redis_version", "0")).partition(".")[0]) < _OLDEST_REDIS:
        return Finding(_NAME, Verdict.FAILED, f"{found}: leases need 5 or newer", "take a newer server")
    if info.get("role") in ("slave", "replica"):
        advice = "give the address of the primary"
        return Finding(_NAME, Verdict.FAILED, f"{found} is a replica, which takes no writes", advice)
    return None


def judged_server(info: Mapping[str, Any], where: str, took: float) -> Finding:
    """
    How well a Redis server keeps leases.

    Args:
        info: What it answers to `INFO`.
        where: Its address, without a password.
        took: Seconds for an answer.
    """
    found = f"{_server_name(info)} at {where}: an answer takes {took * 1000:.1f} ms"
    policy = str(info.get("maxmemory_policy") or "")
    if policy.startswith("allkeys"):
        is_full_some_day = int(info.get("maxmemory") or 0) > 0
        fix = Fix("shell", "redis-cli CONFIG SET maxmemory-policy volatile-lru", "and in the server's own file")
        return Finding(
            _NAME,
            Verdict.WARNING if is_full_some_day else Verdict.NOTE,
            f"{found}; its policy {policy} may evict the leases: the limit is then exceeded for a while",
            "let it evict only keys that expire: those of leases do not",
            (fix,),
        )
    return _slow_or_fine(found, took)


def _server_name(info: Mapping[str, Any]) -> str:
    if valkey := info.get("valkey_version"):
        return f"Valkey {valkey}"
    return f"Redis {info.get('redis_version', '0')}"


#: Leaves nothing behind, unless the user may not delete; then one small key that every examination uses.
_TRY = """
redis.call('HSET', KEYS[1], 'version', '')
redis.call('PUBLISH', ARGV[1], '')
redis.pcall('DEL', KEYS[1])
return 1
"""


def _use_like_leases(client: Redis) -> None:
    """Call what `RedisLeases` calls, in its part of the keys and channels."""
    key = "pooling:leases:lakebase-doctor"
    subscription = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    try:
        subscription.subscribe(f"{key}:channel")
        with client.pipeline(transaction=False) as pipeline:
            pipeline.hmget(key, "version", "book")
            pipeline.time()
            pipeline.execute()
        client.register_script(_TRY)(keys=[key], args=[f"{key}:channel"])
    finally:
        subscription.close()


def _redis_user(name: str) -> Fix:
    text = (
        f"redis-cli ACL SETUSER {shlex.quote(name)} \\\n"
        "    '~pooling:leases:*' '&pooling:leases:*' +ping +info +time \\\n"
        "    +hmget +hset +publish +subscribe +unsubscribe +evalsha '+script|load'"
    )
    return Fix("shell", text, "as the server's administrator")


def _words(error: BaseException, password: str | None) -> str:
    text = first_line(error)
    return text.replace(password, "***") if password else text


# The table


def _postgres(facts: Facts, table: str) -> Finding:
    if facts.connection is None:
        return skipped(_NAME, "login")
    try:
        leases = PostgresLeases(lambda: None, table=table)
    except ConfigurationError as error:
        return Finding(_NAME, Verdict.FAILED, str(error))
    parts = parse_name(facts.connection, table)
    assert not isinstance(parts, str)  # `PostgresLeases` is stricter
    wanted = ("SELECT", "INSERT", "UPDATE")
    relation = find_relation(facts, parts[0] if len(parts) == 2 else None, parts[-1], wanted)
    role = quoted_name(facts.connection.info.user)
    statements = leases.create_sql(role).replace(";\n", "\n").splitlines()
    if relation is None:
        fix = as_sql(statements, "as a role that may create tables")
        return Finding(_NAME, Verdict.FAILED, f"there is no table {table}", "create it", (fix,))
    if relation.missing or not relation.is_reachable:
        missing = ", ".join(relation.missing) or "USAGE on its schema"
        fix = as_sql(statements[1:], f"as {relation.owner}")
        return Finding(_NAME, Verdict.FAILED, f"{relation}: this role has no {missing}", "grant it", (fix,))
    if relation.has_row_security and not (relation.is_own and not relation.forces_row_security):
        found = f"{relation} has row-level security: processes do not see one another's leases"
        return Finding(_NAME, Verdict.FAILED, found, "keep leases in a table without it")
    took = _median(lambda: facts.connection.execute("SELECT clock_timestamp()").fetchone())
    found = f"{relation}: an answer takes {took * 1000:.1f} ms"
    many = facts.processes
    found += f"; {many} process{'es' * (many > 1)} need a connection each beside the limit"
    if facts.endpoint is not None and facts.endpoint.suspend_after:
        advice = "keep leases in files or Redis if the compute should be suspended while processes hold connections"
        return Finding(_NAME, Verdict.NOTE, f"{found}; renewing leases keeps the compute awake", advice)
    return _slow_or_fine(found, took)


def _slow_or_fine(found: str, took: float) -> Finding:
    if took > _SLOW:
        advice = "take a server that is nearer, or a larger block= so that processes ask less often"
        return Finding(_NAME, Verdict.WARNING, found, advice)
    return Finding(_NAME, Verdict.OK, found)


def _median(ask: Callable[[], object]) -> float:
    took = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        ask()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)
