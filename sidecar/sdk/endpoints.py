"""Where a runtime is and which key opens it: declared by adapters, resolved once per client."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from sidecar.sdk.errors import InvalidSettingError, MissingKeyError

Authorise = Callable[[str], Mapping[str, str]]
"""Makes the request headers that carry a key."""

_SHORTEST_MASKED_KEY = 4
_MASK = "***"


def bearer(key: str) -> Mapping[str, str]:
    """Send the key as `Authorization: Bearer`."""
    return {"authorization": f"Bearer {key}"}


def basic(key: str) -> Mapping[str, str]:
    """Send the key as the user name of HTTP Basic, with an empty password."""
    return {"authorization": f"Basic {_basic_token(key)}"}


def header(name: str) -> Authorise:
    """Send the key in a header of its own, such as `x-api-key`."""
    return lambda key: {name: key}


def _never(_body: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One HTTP API that can list a runtime's models."""

    name: str
    """Its name in the client's `api_keys` and `base_urls`; the runtime's name unless it has several."""
    key_variable: str
    base_url_variable: str
    default_base_url: str | None
    """Used when a key is given without a base URL; None when there is no sensible default."""
    authorise: Authorise
    is_key_required: bool = True
    version_path: str = "/v1"
    """Dropped from the end of a given base URL, because people write it with and without."""
    refuses_key: Callable[[Any], bool] = _never
    """Whether the JSON body of a 400 really means a wrong key."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An endpoint with its base URL (no trailing slash) and key."""

    endpoint: Endpoint
    base_url: str
    key: SecretStr | None

    def headers(self) -> Mapping[str, str]:
        """Return the headers that carry the key; empty without one."""
        return self.endpoint.authorise(self.key.get_secret_value()) if self.key else {}

    def mask(self, text: str) -> str:
        """Return `text` without the key, in clear or as a Basic token."""
        key = self.key.get_secret_value() if self.key else ""
        if len(key) < _SHORTEST_MASKED_KEY:
            return text
        return text.replace(_basic_token(key), _MASK).replace(key, _MASK)


class Credentials:
    """Keys and base URLs from arguments first, then from the environment."""

    def __init__(
        self,
        *,
        api_keys: Mapping[str, str],
        base_urls: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> None:
        self._api_keys = dict(api_keys)
        self._base_urls = dict(base_urls)
        self._environ = environ

    @property
    def named(self) -> frozenset[str]:
        """The endpoint names that arguments mention."""
        return frozenset(self._api_keys) | frozenset(self._base_urls)

    def connect(self, runtime: str, endpoints: Sequence[Endpoint]) -> Connection:
        """Choose the first endpoint that is completely configured; those named by arguments come first.

        Raises MissingKeyError and InvalidSettingError.
        """
        by_argument = [e for e in endpoints if e.name in self.named]
        for endpoint in [*by_argument, *(e for e in endpoints if e not in by_argument)]:
            key = self._key(runtime, endpoint)
            base_url = self._base_url(runtime, endpoint)
            if key is None and (endpoint.is_key_required or base_url is None):
                continue
            base_url = base_url or endpoint.default_base_url
            if base_url is not None:
                return Connection(endpoint, base_url, key)
        ways = " or ".join(_way(endpoint) for endpoint in endpoints)
        raise MissingKeyError(f"not configured: set {ways}", runtime=runtime)

    def _key(self, runtime: str, endpoint: Endpoint) -> SecretStr | None:
        key = self._api_keys.get(endpoint.name) or self._environ.get(endpoint.key_variable) or ""
        key = key.strip()
        if not all("!" <= character <= "~" for character in key):
            raise InvalidSettingError(
                f"the key for {endpoint.name!r} has blanks or non-ASCII characters inside",
                runtime=runtime,
            )
        return SecretStr(key) if key else None

    def _base_url(self, runtime: str, endpoint: Endpoint) -> str | None:
        given = self._base_urls.get(endpoint.name)
        given = given or self._environ.get(endpoint.base_url_variable) or ""
        url = given.strip().rstrip("/").removesuffix(endpoint.version_path).rstrip("/")
        if not url:
            return None
        where = f"the base URL for {endpoint.name!r} ({endpoint.base_url_variable})"
        try:
            parts = urlsplit(url)
            has_port_or_none = parts.port is None or parts.port > 0
        except ValueError as error:
            raise InvalidSettingError(f"{where} is not a URL", runtime=runtime) from error
        if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port_or_none:
            raise InvalidSettingError(
                f"{where} must be http(s)://host[:port][/path]", runtime=runtime
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidSettingError(
                f"{where} must not carry a user, password, query or fragment; keys go in api_keys",
                runtime=runtime,
            )
        return url


def _basic_token(key: str) -> str:
    return base64.b64encode(f"{key}:".encode()).decode()


def _way(endpoint: Endpoint) -> str:
    if endpoint.is_key_required:
        return f"{endpoint.key_variable} (or pass api_keys={{{endpoint.name!r}: ...}})"
    return f"{endpoint.base_url_variable} (or pass base_urls={{{endpoint.name!r}: ...}})"
