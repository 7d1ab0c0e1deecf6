"""The user of a request, read from its headers."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pooling import RequestContext, RequestContextError

from ._role_names import role_name_problem
from ._secrets import HiddenText
from .errors import IdentityError

__all__ = ["UserIdentity", "request_with_user", "token_fingerprint"]

# Set by the proxy of Databricks Apps, which removes a client's own:
# https://docs.databricks.com/aws/en/dev-tools/databricks-apps/http-headers
_TOKEN = "x-forwarded-access-token"  # noqa: S105
_EMAIL = "x-forwarded-email"
_USER = "x-forwarded-user"
_NAME = "x-forwarded-preferred-username"
_REQUEST = "x-request-id"
_HEADERS = frozenset({_TOKEN, _EMAIL, _USER, _NAME, _REQUEST})
_UNIQUE = frozenset({_TOKEN, _EMAIL, _USER})

_LONGEST = {_TOKEN: 16_384}
_LONGEST_OTHERS = 320

# A new key in each process: a fingerprint in a log cannot be compared with one computed elsewhere.
_KEY = secrets.token_bytes(32)


def token_fingerprint(token: str | bytes | None) -> str | None:
    """
    A short name for a token that tells two of them apart without revealing either; `None` for `None`.

    It is stable within the process, and of no use outside it.

    Args:
        token: As text, or as the bytes of a header.

    Raises:
        IdentityError: It is neither.
    """
    if token is None:
        return None
    if isinstance(token, str):
        token = token.encode("utf-8", "surrogatepass")
    elif not isinstance(token, (bytes, bytearray)):
        raise IdentityError(f"token is of type {type(token).__name__}: expected a string, or the bytes of a header")
    return hashlib.blake2b(token, key=_KEY, digest_size=12).hexdigest()


@dataclass(frozen=True)
class UserIdentity:
    """
    A user, and what proves it.

    It can be pickled, for a process that acts for the user; the pickle has the token in it.

    Args:
        user: The Postgres role: the e-mail address, else the user id. At most 63 bytes in UTF-8.
        token: The user's workspace token, with which credentials are minted. Never shown.
        email: As the headers had it.
        user_id: As the headers had it.
        display_name: As the headers had it; not unique, no key.
        request_id: Of the request it came with; not part of the identity.
        from_request: Taken from headers. Headers without a token prove nothing:
            such an identity may be shown, but never selects a pool.
    """

    user: str
    token: str | None = field(default=None, repr=False)
    email: str | None = None
    user_id: str | None = None
    display_name: str | None = field(default=None, compare=False)
    request_id: str | None = field(default=None, compare=False)
    from_request: bool = False

    @staticmethod
    def checked(given: object) -> UserIdentity:
        """
        What was given, if it is one.

        Raises:
            IdentityError: It is something else, such as a bare name.
        """
        if isinstance(given, UserIdentity):
            return given
        raise IdentityError(
            f"an identity of type {type(given).__name__}: expected a UserIdentity, as "
            "UserIdentity.from_headers(headers) or UserIdentity(user, token) makes it"
        )

    def __post_init__(self) -> None:
        _check("user", self.user, _LONGEST_OTHERS)
        if problem := role_name_problem(self.user):
            raise IdentityError(f"{self.user!r} cannot be the Postgres role of a user: {problem}")
        if self.token is not None:
            _check("token", self.token, _LONGEST[_TOKEN], printable=True)

    @classmethod
    def from_headers(cls, headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Self:
        """
        The identity in the headers that Databricks Apps adds to a request.

        Takes what web frameworks have: any mapping or multi-mapping of header
        names, an ASGI scope's list of pairs, a WSGI environ, Django's `META`.
        Names are compared without regard to case.

        Raises:
            IdentityError: No user in the headers, a value that cannot be one, or two different values of one header.
        """
        found: dict[str, str] = {}
        for name, value in _relevant(headers):
            if value == "":
                continue
            _check(name, value, _LONGEST.get(name, _LONGEST_OTHERS), printable=name == _TOKEN)
            if found.setdefault(name, value) != value:
                raise IdentityError(
                    f"the request has two different {_title(name)} headers: only the app's own proxy may set it, once",
                    header=_title(name),
                )
        email, user_id = found.get(_EMAIL), found.get(_USER)
        user = email or user_id
        if user is None:
            raise IdentityError(
                f"the request carries no user identity: no {_title(_EMAIL)} or {_title(_USER)} header. Databricks Apps "
                "sets them; elsewhere, build UserIdentity(user, token) from your own authentication.",
                header=_title(_EMAIL),
            )
        return cls(
            user,
            found.get(_TOKEN),
            email=email,
            user_id=user_id,
            display_name=found.get(_NAME),
            request_id=found.get(_REQUEST),
            from_request=True,
        )

    @property
    def selects_pool(self) -> bool:
        """Whether a pool may be chosen by it: not if it is a request's bare claim, without its token."""
        return self.token is not None or not self.from_request

    @property
    def fingerprint(self) -> str | None:
        """`token_fingerprint` of its token: another one means that the token was rotated."""
        return token_fingerprint(self.token)

    def pool_key(self) -> str:
        """
        The key of the user's pool.

        Raises:
            IdentityError: The identity came from headers without a token.
        """
        if not self.selects_pool:
            raise IdentityError(
                f"the request names {self.user!r} but has no {_title(_TOKEN)} header, so it proves nothing and selects "
                "no pool. Switch on user authorization for the app, so that the header is sent; or use the app's pool.",
                header=_title(_TOKEN),
            )
        return self.user

    def pool_config(self) -> dict[str, Any]:
        """
        The settings of this user's pool, to be merged over a base configuration.

        Raises:
            IdentityError: The identity came from headers without a token.
        """
        user = self.pool_key()
        return {"user": user} if self.token is None else {"user": user, "token": HiddenText(self.token)}


def _relevant(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    pairs = [(str(_text(name)), value) for name, value in _pairs(headers)]
    # In an environ, `HTTP_X_FORWARDED_EMAIL` is that header. In a mapping of headers the same spelling is one that any
    # client may send, so the two must not be mixed: header names have hyphens, an environ's have none.
    is_environ = any(name == "REQUEST_METHOD" for name, _ in pairs) and not any(
        "-" in name and "." not in name for name, _ in pairs
    )
    for key, value in pairs:
        name = key.lower()
        if is_environ:
            name = name.removeprefix("http_").replace("_", "-") if key.startswith("HTTP_") else ""
        if name in _HEADERS:
            yield name, _text(value)


def _pairs(headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, Any]]:
    # `multi_items` (httpx) and `getlist`-style mappings repeat a name in `items()` only in some frameworks.
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
    if items is not None:
        return items()  # type: ignore[no-any-return]
    if isinstance(headers, (str, bytes)):
        raise IdentityError(f"headers of type {type(headers).__name__}: expected a mapping of names to values")
    try:
        return [(name, value) for name, value in headers]
    except (TypeError, ValueError) as error:
        raise IdentityError(
            f"headers of type {type(headers).__name__}: expected a mapping of names to values, or pairs"
        ) from error


def _text(value: Any) -> Any:
    """
    A name or value of a header as text.

    Proxies send UTF-8, which most frameworks read as Latin-1: what can be read anew as UTF-8, is.
    """
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("latin-1")
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:  # it is Latin-1, or the framework has read it as UTF-8
        return value


def _check(name: str, value: object, longest: int, *, printable: bool = False) -> None:
    shown = _title(name) if name in _HEADERS else name
    if not isinstance(value, str):
        raise IdentityError(f"{shown} is of type {type(value).__name__}: expected a string", header=shown)
    if not value or value != value.strip():
        raise IdentityError(f"{shown} is empty or has spaces around it", header=shown)
    if len(value) > longest:
        raise IdentityError(f"{shown} has {len(value)} characters, more than {longest}", header=shown)
    if any(map(_is_control, value)) or (printable and (" " in value or not value.isascii())):
        raise IdentityError(f"{shown} has characters that cannot be in it", header=shown)
    if "," in value and name in _UNIQUE:
        raise IdentityError(f"{shown} has a comma in it, as when two headers of that name were joined", header=shown)


def _is_control(character: str) -> bool:
    """Whether it is a control character, or half of one from bytes that are not UTF-8."""
    return character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff"


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


#: The header with the user's token, as errors name it.
TOKEN_HEADER = _title(_TOKEN)


def request_with_user() -> RequestContext | None:
    """
    The current request, for its identity; `None` outside of any.

    Raises:
        RequestContextError: It has ended. A task or thread that it has started still has it as its current request, and
            may by now work for another user, as a queue that the first request has started does.
    """
    context = RequestContext.current()
    if context is not None and context.has_ended:
        raise RequestContextError(
            f"{context} has ended, so nothing is done as its user any more. Code that runs on, such as a background "
            "task, opens a RequestContext of its own with the identity for which it works; what serves several users "
            "is given the pool of each: manager.for_user(identity)."
        )
    return context
