"""Where no key is asked, an agent's programs are kept out: they run on this machine, as our user.

The API could answer an agent's own permission requests or reach other sessions. Who is at the other end of a
loopback connection is not what it says but what the kernel knows.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.errors import PermissionDeniedError
from sidecar.http.routes import route_of
from sidecar.processes.connections import is_from_below


def refuse_agents(*, public: Collection[str] = ()) -> Middleware:
    """Return the middleware that refuses connections of processes below this one, opencode's and its shells.

    Routes in `public` are for all. Each connection is looked up once.
    """
    known: weakref.WeakKeyDictionary[asyncio.BaseTransport, bool] = weakref.WeakKeyDictionary()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if route_of(request) not in public and transport is not None:
            if transport not in known:
                known[transport] = await asyncio.to_thread(_is_from_agent, transport)
            if known[transport]:
                raise PermissionDeniedError(
                    "refused to a process that an agent has started: without RUNTIME_API_KEY it could "
                    "allow its own calls and reach other sessions"
                )
        return await handler(request)

    return check


def _is_from_agent(transport: asyncio.BaseTransport) -> bool:
    ours, theirs = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    if not (isinstance(ours, tuple) and isinstance(theirs, tuple)):
        return False  # no network
    return is_from_below((ours[0], ours[1]), (theirs[0], theirs[1]), root=os.getpid())
