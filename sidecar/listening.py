"""Where a listener listens, and how its URL is written. No knowledge of what it serves."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp import web

ANY_IPV6 = "::"
_ANY = {"0.0.0.0": "127.0.0.1", ANY_IPV6: "127.0.0.1"}  # noqa: S104  # compared, not bound
"""Addresses to bind, not to call -> what reaches them from this machine."""
_BACKLOG = 128


async def listen(runner: web.BaseRunner, host: str, port: int) -> None:
    """Serve `runner` at that address; port 0 picks a free one. Raises OSError.

    `::` serves IPv4, too: left to asyncio it would serve IPv6 only, and no other value would serve both.
    """
    if host != ANY_IPV6:
        await web.TCPSite(runner, host, port).start()
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
