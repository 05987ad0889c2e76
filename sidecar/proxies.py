"""The company proxy: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, for what leaves this machine.

aiohttp's own `trust_env` is not used: it would also send what a `.netrc` holds, it knows no networks in
`NO_PROXY` (`10.0.0.0/8`, the usual form in Kubernetes), and it would send loopback requests to the proxy.
The child is reached through a client that never sees these variables.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    encode_basic_auth,
)
from multidict import CIMultiDict
from yarl import URL

from sidecar.errors import SettingsError

_VARIABLES = {"http": ("http_proxy", "HTTP_PROXY"), "https": ("https_proxy", "HTTPS_PROXY")}
_ALL = ("all_proxy", "ALL_PROXY")
_NONE = ("no_proxy", "NO_PROXY")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy a URL is reached through. Made by `from_environment`."""

    by_scheme: Mapping[str, URL]
    exempt: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Schemes for which `ALL_PROXY` names a proxy that cannot be used here, and the error message of each."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Proxies:
        """Read the variables as curl does: lower case wins, an empty one counts as unset, and `ALL_PROXY` is
        for schemes that have none of their own.

        Raises SettingsError for a value that is not the URL of an HTTP proxy. In `ALL_PROXY`, where desktops
        put SOCKS proxies, it is an error of the requests that would need it.
        """
        by_scheme, unusable = {}, {}
        for scheme, names in _VARIABLES.items():
            name, value = _first(environment, names)
            all_name, all_value = _first(environment, _ALL)
            if value:
                by_scheme[scheme] = _proxy_url(name, value)
            elif all_value:
                try:
                    by_scheme[scheme] = _proxy_url(all_name, all_value)
                except SettingsError as error:
                    unusable[scheme] = f"{error.message}; set {names[1]}, or NO_PROXY for the host"
        _, none = _first(environment, _NONE)
        exempt = tuple(part.lower() for part in re.split(r"[\s,]+", none) if part)
        return cls(by_scheme, exempt, unusable)

    def proxy_for(self, url: URL) -> URL | None:
        """Return the proxy, or None for a direct connection. Loopback is always direct.

        Raises SettingsError when the URL's proxy cannot be used.
        """
        host = (url.host or "").lower().rstrip(".")
        if not host or is_loopback(host):
            return None
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
        if any(_is_exempt(host, port, entry) for entry in self.exempt):
            return None
        if url.scheme in self.unusable:
            raise SettingsError(self.unusable[url.scheme])
        return self.by_scheme.get(url.scheme)

    @property
    def middlewares(self) -> tuple[ClientMiddlewareType, ...]:
        """For `aiohttp.ClientSession(middlewares=...)`: sends its requests through their proxies."""
        return (self._send,) if self.by_scheme or self.unusable else ()

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        proxy = self.proxy_for(request.url)
        if proxy is not None:
            headers = CIMultiDict[str]()
            if proxy.user is not None:
                headers["proxy-authorization"] = encode_basic_auth(proxy.user, proxy.password or "")
            request.update_proxy(proxy.with_user(None), None, headers)
            if request.url.scheme == "http":  # there is no CONNECT that would carry it
                request.headers.update(headers)
        return await handler(request)

    def describe(self, url: URL) -> str:
        """Say how a URL is reached, without the proxy's password."""
        try:
            proxy = self.proxy_for(url)
        except SettingsError as error:
            return f"not at all: {error.message}"
        if proxy is not None:
            return f"through the proxy {proxy.with_user(None)}"
        if self.by_scheme.get(url.scheme) is None:
            return "directly (no proxy is set for it)"
        reason = "loopback" if is_loopback(url.host or "") else "NO_PROXY"
        return f"directly ({reason})"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    for name in names:
        if value := environment.get(name, "").strip():
            return name, value
    return names[0], ""


def _proxy_url(name: str, value: str) -> URL:
    try:
        url = URL(value if "://" in value else f"http://{value}")
    except ValueError as error:
        raise SettingsError(f"{name}: not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise SettingsError(
            f"{name}: only HTTP proxies are supported, as http://host:port (it has {url.scheme}://)"
        )
    return url


def _is_exempt(host: str, port: int | None, entry: str) -> bool:
    """Whether an entry of NO_PROXY means the host: a name, a domain, an address, or a network."""
    if entry == "*":
        return True
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass  # a name, or an address with a port
    name, _, given_port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    name = name or entry
    if entry.startswith("["):
        name, _, given_port = entry[1:].partition("]")
        given_port = given_port.removeprefix(":")
    if given_port and given_port != str(port):
        return False
    name = name.removeprefix("*").removeprefix(".").rstrip(".")
    if address is not None and address == _address(name):
        return True
    return bool(name) and (host == name or (address is None and host.endswith(f".{name}")))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is, None for a name. One of IPv4 may be written as one of IPv6."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
