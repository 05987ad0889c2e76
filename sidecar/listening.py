"""What listeners share: where they listen, how a URL is written, what happens when a caller hangs up."""

from __future__ import annotations

import errno
import ipaddress
import socket

from aiohttp import ClientConnectionResetError, web
from aiohttp.typedefs import Handler

from sidecar.errors import SettingsError

ANY_IPV6 = "::"
_ANY = {"0.0.0.0": "127.0.0.1", ANY_IPV6: "127.0.0.1"}  # noqa: S104  # compared, not bound
"""Addresses to bind, not to call -> what reaches them from this machine."""
_BACKLOG = 128
_CALLER_GONE = 499
"""As nginx has it. It is not sent: the connection is closed."""


async def listen(runner: web.BaseRunner, host: str, port: int) -> None:
    """Serve `runner` at that address; port 0 picks a free one. Raises OSError.

    `::` serves IPv4, too: left to asyncio it would serve IPv6 only, and no other value would serve both.
    """
    if host != ANY_IPV6:
        try:
            await web.TCPSite(runner, host, port).start()
        except UnicodeError as error:  # an empty or long label, bytes that are no text
            raise OSError(errno.EADDRNOTAVAIL, "not a host name") from error
        return
    listener = socket.create_server(
        (host, port),
        family=socket.AF_INET6,
        backlog=_BACKLOG,
        dualstack_ipv6=socket.has_dualstack_ipv6(),
    )
    try:
        await web.SockSite(runner, listener).start()
    except BaseException:
        listener.close()
        raise


def cannot_listen(
    error: OSError, host: str, port: int, *, host_setting: str, port_setting: str
) -> SettingsError:
    """Return what is said of a listener that `listen` could not open: the setting to change, and how."""
    why = f"cannot listen on {host}:{port}: {error.strerror or error}"
    if is_about_host(error):
        return SettingsError(f"{host_setting}: {why}; set it to an address of this machine")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return SettingsError(f"{port_setting}: {why}; set one that this user may use, above 1023")
    return SettingsError(f"{port_setting}: {why}; stop what uses it or set another {port_setting}")


def is_about_host(error: OSError) -> bool:
    """Return whether another port would not help: the address is none of this machine's, or unknown."""
    # None: asyncio tried several addresses.
    unusable = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, None}
    return isinstance(error, socket.gaierror) or error.errno in unusable


@web.middleware
async def expect_hang_ups(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End a streamed answer quietly when its caller has closed the connection.

    Writing to it raises ClientConnectionResetError until the handler is cancelled, a moment later. aiohttp
    would log that as an unexpected error, with a traceback.
    """
    try:
        return await handler(request)
    except ClientConnectionResetError:
        return web.Response(status=_CALLER_GONE)


def callable_host(host: str) -> str:
    """Return the address under which this machine calls a listener on `host`."""
    return _ANY.get(host, host)


def url_of(host: str, port: int) -> str:
    """Return the listener's URL as this machine calls it; an IPv6 address is written in brackets."""
    shown = callable_host(host)
    try:
        is_ipv6 = ipaddress.ip_address(shown).version == 6
    except ValueError:
        is_ipv6 = False
    return f"http://[{shown}]:{port}" if is_ipv6 else f"http://{shown}:{port}"
