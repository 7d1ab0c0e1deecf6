"""
Which credential a configuration logs in with, and minting one.

`credential_source` is the source of one identity's passwords for all of a pool's
connections; `CredentialCache` lets pools of the same identity share them.
"""

from __future__ import annotations

import inspect
import os
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from pooling.locks import make_lock

from ._config_checks import check_claims
from ._user_client import workspace_at
from ._workers import run_alone
from ._workspace import is_transient, new_client, quiet, why_no_client, without_secrets
from ._workspace_errors import PermissionDenied, refusal_of
from .endpoints import check_host, read_write_endpoint
from .errors import ConfigurationError, CredentialError
from .identity import token_fingerprint
from .passwords import AsyncCallablePassword, CredentialSource, DatabaseCredential, MintedPassword, StaticPassword

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .config import LakebasePoolConfig

__all__ = [
    "CredentialCache",
    "CredentialSource",
    "DatabaseCredential",
    "credential_source",
    "generate_database_credential",
]

MINT_ATTEMPTS = 3
#: Longest life that the service gives a token. A machine whose clock is behind would believe in a longer one.
TOKEN_LIFETIME = 3600.0


def generate_database_credential(
    workspace_client: WorkspaceClient,
    endpoint: str | None = None,
    claims: Sequence[Any] | None = None,
    *,
    instance_name: str | None = None,
    ttl: float | None = None,
) -> DatabaseCredential:
    """
    A new credential for an endpoint, minted as the client's identity.

    Blocks for a request to the workspace, with the client's own retries; call it
    from a thread if there is an event loop. Nothing is cached.

    Args:
        workspace_client: A `databricks.sdk.WorkspaceClient`.
        endpoint: `projects/P/branches/B/endpoints/E`, or `projects/P/branches/B` for that branch's
            read-write endpoint.
        claims: Restricts the token to Unity Catalog tables: the SDK's `RequestedClaims`, or mappings of their shape.
        instance_name: Of a provisioned instance, instead of `endpoint`.
        ttl: Seconds that the token lives, 300 to 3600; `None` is the service's hour. Endpoints only.

    Raises:
        CredentialError: The workspace refused, or did not answer; `__cause__` is the SDK's error.
        ConfigurationError: Neither or both of `endpoint` and `instance_name` are given.
    """
    if (endpoint is None) == (instance_name is None):
        raise ConfigurationError("exactly one of endpoint= and instance_name= is needed", field="endpoint")
    if endpoint is not None and not endpoint.startswith("projects/"):
        raise ConfigurationError(
            f"endpoint={endpoint!r}: expected projects/P/branches/B/endpoints/E; for a provisioned instance, give "
            "instance_name= instead",
            field="endpoint",
        )
    service = "postgres" if instance_name is None else "database"
    if not hasattr(workspace_client, service):
        what = type(workspace_client).__name__
        raise ConfigurationError(
            f"workspace_client is of type {what}: expected a databricks.sdk.WorkspaceClient, of a release that has "
            f".{service}",
            field="workspace_client",
        )
    check_claims(claims)
    try:
        minted = mint(workspace_client, endpoint=endpoint, instance_name=instance_name, claims=claims, ttl=ttl)
    except CredentialError:
        raise
    except Exception as error:
        raise _mint_failed(error, endpoint or instance_name or "", workspace_client) from error
    return DatabaseCredential(*minted)


def mint(
    client: WorkspaceClient,
    *,
    endpoint: str | None = None,
    instance_name: str | None = None,
    claims: Sequence[Any] | None = None,
    ttl: float | None = None,
) -> tuple[str, datetime]:
    """A database token and when it expires (aware, UTC). Blocks for one request and the SDK's retries."""
    with quiet():
        if instance_name is not None:
            return _mint_for_instance(client, instance_name, claims)
        assert endpoint is not None
        return _mint_for_endpoint(client, endpoint, claims, ttl)


def _mint_for_endpoint(
    client: WorkspaceClient, endpoint: str, claims: Sequence[Any] | None, ttl: float | None
) -> tuple[str, datetime]:
    if "/endpoints/" not in endpoint:
        endpoint = read_write_endpoint(client, endpoint)
    arguments: dict[str, Any] = {}
    if claims is not None:
        arguments["claims"] = [_claim(claim) for claim in claims]
    if ttl is not None:
        from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped]

        arguments["ttl"] = Duration(seconds=int(ttl))
    answer = client.postgres.generate_database_credential(endpoint=endpoint, **arguments)
    return _complete(answer.token, answer.expire_time)


def _mint_for_instance(
    client: WorkspaceClient, instance_name: str, claims: Sequence[Any] | None
) -> tuple[str, datetime]:
    arguments: dict[str, Any] = {}
    if claims is not None:
        arguments["claims"] = [_claim(claim) for claim in claims]
    answer = client.database.generate_database_credential(instance_names=[instance_name], **arguments)
    return _complete(answer.token, answer.expiration_time)


class _Claim(dict[str, Any]):
    """A claim that was given as a mapping, as clients want it."""

    def as_dict(self) -> dict[str, Any]:
        return self


def _claim(claim: Any) -> Any:
    return _Claim(claim) if isinstance(claim, Mapping) else claim


def _complete(token: str | None, expires_at: Any) -> tuple[str, datetime]:
    if not token:
        raise CredentialError("the workspace answered without a token", is_transient=True)
    return token, aware(expires_at)


def aware(instant: Any) -> datetime:
    """An instant as the SDK's releases give it (protobuf, text, datetime) as an aware datetime in UTC."""
    if hasattr(instant, "ToDatetime"):
        instant = instant.ToDatetime()
    elif isinstance(instant, str):
        # Protobuf's JSON has up to nine digits of a second; `datetime` reads six.
        instant = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", instant))
    if not isinstance(instant, datetime):
        raise CredentialError("the workspace answered without the instant at which its token expires")
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _mint_failed(error: Exception, target: str, client: WorkspaceClient) -> CredentialError:
    transient = is_transient(error)
    if transient:
        advice = "The workspace did not answer or is overloaded; it may work in a moment."
    elif isinstance(error, PermissionDenied):  # to a user: those of the app are the SDK's
        advice = (
            "A user's token mints only with the scope 'postgres': add it to the app's user API scopes, and have the "
            "user agree to it. Check too that the token is valid, and that the user may use the endpoint."
        )
    else:
        advice = "Check that the identity may use the endpoint, that its token is valid, and that the endpoint exists."
    words = without_secrets(client, " ".join(str(error).split()))
    words = words.partition(". Config: ")[0].rstrip(".")  # the SDK adds all of its settings
    words = words if len(words) <= 300 else f"{words[:300]}…"
    return CredentialError(
        f"no credential could be minted for {target}: {type(error).__name__}: {words}. {advice}",
        is_transient=transient,
        retry_after=getattr(error, "retry_after", None),
        refusal=refusal_of(error),
        step="creating",
    )


class _Minter:
    """Mints for one configuration. Holds the app's client; a user's is made for each mint, once an hour."""

    __slots__ = ("_checks_host", "_client", "_config", "_latest")

    def __init__(self, config: LakebasePoolConfig) -> None:
        self._config = config
        self._client: tuple[int, WorkspaceClient] | None = None
        self._latest: WorkspaceClient | None = None
        self._checks_host = True

    def __str__(self) -> str:
        return f"credential of {self._config.user!r} for {self._config.endpoint or self._config.instance_name}"

    def __call__(self) -> DatabaseCredential:
        config = self._config
        client = self._get_client()
        credential = generate_database_credential(
            client, config.endpoint, config.claims, instance_name=config.instance_name
        )
        if self._checks_host:
            self._latest = client
        return credential

    def begin(self, mint: Callable[[], object]) -> None:
        """
        Have a mint run in the background: a user's on one of the threads of the workspace, the app's on its own.

        The SDK sets no time limit on its OAuth requests: one that hangs must not keep users' from being made.
        """
        config = self._config
        workspace = None
        if config.token is not None and config.workspace_client is None:
            workspace = workspace_at(config.workspace_url)
        (run_alone if workspace is None else workspace.workers.run)(mint)

    def check_host(self) -> None:
        """Called once, after the first mint, when its callers have been served."""
        client, self._latest, self._checks_host = self._latest, None, False
        if client is not None and not self._config.read_only:  # that host has been asked for already
            check_host(self._config, client)

    def _get_client(self) -> WorkspaceClient:
        config = self._config
        if config.workspace_client is not None:
            return config.workspace_client
        # A client made before a fork shares its sockets with the parent.
        if self._client is not None and self._client[0] == os.getpid():
            return self._client[1]
        try:
            client = new_client(host=config.workspace_url, token=config.token)
        except Exception as error:
            raise CredentialError(why_no_client(error), is_transient=is_transient(error), step="creating") from error
        if config.token is None:
            self._client = os.getpid(), client
        # A user's client is let go: thousands of users would keep one each.
        return client


def credential_source(config: LakebasePoolConfig, *, is_async: bool = False) -> CredentialSource:
    """
    Where the pool of this configuration has its passwords from. Does no I/O.

    Args:
        config: A resolved one.
        is_async: Whether `apassword()` will be called rather than `password()`.

    Raises:
        ConfigurationError: An `async` password callable for a pool that blocks.
    """
    password = config.password
    if isinstance(password, str):
        return StaticPassword(password)
    if password is not None:
        if is_async_function(password):
            if not is_async:
                raise ConfigurationError(
                    "password is an async callable, and this pool blocks: give a plain function, or use the asyncio "
                    "pool",
                    field="password",
                )
            return AsyncCallablePassword(cast("Callable[[], Awaitable[str | DatabaseCredential]]", password))
        return MintedPassword(cast("Callable[[], str | DatabaseCredential]", password))
    minter = _Minter(config)
    return MintedPassword(
        minter,
        name=minter,
        attempts=MINT_ATTEMPTS,
        longest=TOKEN_LIFETIME,
        after=minter.check_host,
        begin=minter.begin,
    )


def is_async_function(call: Any) -> bool:
    """Whether calling this gives a coroutine, as far as can be told without calling it."""
    call = getattr(call, "func", call)  # functools.partial
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def _identity_of(config: LakebasePoolConfig) -> tuple[Any, ...]:
    """What tells two configurations apart that must not share a credential."""
    return (
        config.user,
        token_fingerprint(config.token),
        config.workspace_client,
        config.workspace_url,
        config.endpoint,
        config.instance_name,
        repr(config.claims),
    )


class CredentialCache:
    """
    Sources by identity, so that a user whose pool was dropped when idle comes back to the token of before.

    Never blocks. The least recently used are evicted; a pool that holds one keeps it.

    Args:
        max_entries: Identities remembered.
    """

    def __init__(self, max_entries: int = 4096) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 0:
            raise ConfigurationError(
                f"max_entries={max_entries!r}: expected a whole number, at least 0", field="max_entries"
            )
        self._max_entries = max_entries
        self._lock = make_lock()
        self._sources: OrderedDict[tuple[Any, ...], CredentialSource] = OrderedDict()

    def source(self, config: LakebasePoolConfig, *, is_async: bool = False) -> CredentialSource:
        """The source of this configuration's identity: the same as before if it mints as the same one."""
        if config.password is not None:
            return credential_source(config, is_async=is_async)
        key = _identity_of(config)
        with self._lock:
            source = self._sources.get(key)
            if source is None:
                source = self._sources[key] = credential_source(config, is_async=is_async)
                while len(self._sources) > self._max_entries:
                    self._sources.popitem(last=False)
            else:
                self._sources.move_to_end(key)
        return source

    def known_or_new(self, config: LakebasePoolConfig, *, is_async: bool = False) -> CredentialSource:
        """As `source`, but one that is not known is not kept."""
        with self._lock:
            known = self._sources.get(_identity_of(config))
        return known or credential_source(config, is_async=is_async)

    def forget(self, config: LakebasePoolConfig) -> None:
        """Remove the source of this configuration's identity, with what it has minted."""
        with self._lock:
            self._sources.pop(_identity_of(config), None)

    def forget_others(self, user: str, *, keep: Iterable[LakebasePoolConfig]) -> None:
        """Remove every source of a user but those of these configurations: those of earlier tokens."""
        kept = {_identity_of(config) for config in keep}
        with self._lock:
            for key in [key for key in self._sources if key[0] == user and key not in kept]:
                del self._sources[key]

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._sources.clear()

    def after_fork(self) -> None:
        """In the child of a fork: another thread of the parent may have held the lock."""
        self._lock = make_lock()

    def __len__(self) -> int:
        return len(self._sources)
