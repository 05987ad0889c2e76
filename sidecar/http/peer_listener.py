"""The internal listener: the owner's side of what other pods send, see `peer_protocol`."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Iterable, Sequence

from aiohttp import ClientConnectionResetError, hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.aiokit import TaskOwner
from sidecar.cluster.boots import Load
from sidecar.cluster.ownership import (
    OwnedElsewhereError,
    Owner,
    OwnershipLostError,
    SharedOwnership,
)
from sidecar.errors import AuthenticationError
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies
from sidecar.http.events import FORWARDED_AS, IS_REPEATED
from sidecar.http.middleware import finish_writes, request_context
from sidecar.http.peer_protocol import (
    BOOT_HEADER,
    CLAIM_HEADER,
    ID_HEADER,
    KEY_HEADER,
    PREFIX,
    RECORD,
    REPEATED_HEADER,
    THE_END,
)
from sidecar.http.streaming import PIECE_BYTES
from sidecar.http.streams import LocalStreams, Wanted
from sidecar.listening import listen

_GATHERED_SECONDS = 0.001
"""Least time between two records of a stream."""


class PeerApi:
    """The internal listener's routes: the owner's side of what `Peers` sends."""

    def __init__(
        self,
        *,
        ownership: SharedOwnership,
        local: LocalStreams,
        load: Load,
        routes: Iterable[web.RouteDef],
    ) -> None:
        self._ownership = ownership
        self._local = local
        self._load = load
        self._routes = list(routes)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of changes, and of streams."""
        changes = [
            web.route(route.method, PREFIX + route.path, self._owned(route.handler))
            for route in self._routes
            if route.method not in {hdrs.METH_GET, hdrs.METH_HEAD}
            and route.path.startswith("/v1/sessions")
        ]
        return [*changes, web.get(f"{PREFIX}/streams/{{id}}", self.stream, allow_head=False)]

    def _owned(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if (session_id := request.match_info.get("id")) is not None:
                await self._check_owned(request, session_id)
                request[FORWARDED_AS] = request.headers[ID_HEADER]
                request[IS_REPEATED] = REPEATED_HEADER in request.headers
            try:
                return await handler(request)
            except OwnershipLostError as error:  # nothing was stored: the sender asks the new owner
                raise OwnedElsewhereError(session_id or "", Owner("", "")) from error

        return handle

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /peer/streams/{id}`: records of batches, see the module."""
        session_id = request.match_info["id"]
        await self._check_owned(request, session_id)
        query = request.query
        wanted = Wanted(
            session_id,
            frozenset(filter(None, query["previews"].split(","))),
            bool(query["replay_finished"]),
            int(query["after"]) if query["after"] else None,
            frozenset(filter(None, query.get("hidden", "").split(","))),
            is_watching=bool(query.get("is_watching", "")),
        )
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/octet-stream"})
        with contextlib.suppress(ClientConnectionResetError):
            async with self._local.open(wanted) as batches:
                await response.prepare(request)
                async for seq, frames in batches:
                    size = sum(map(len, frames))
                    await response.write(b"".join((RECORD.pack(seq, size), *frames)))
                    if size < PIECE_BYTES:
                        # What comes right behind it goes together: a record costs both pods as much as it
                        # costs to show its frames. One that comes alone was sent at once.
                        await asyncio.sleep(_GATHERED_SECONDS)
            if self._ownership.owns(session_id) and not self._load.is_draining:
                await response.write(THE_END)
            await response.write_eof()
        return response

    async def name_boot(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Say in the answer whose it is."""
        response.headers[BOOT_HEADER] = self._ownership.boot_id

    async def _check_owned(self, request: web.Request, session_id: str) -> None:
        if self._ownership.owns(session_id):
            return
        if request.headers.get(CLAIM_HEADER):
            await self._ownership.acquire(session_id)
            return
        raise OwnedElsewhereError(session_id, Owner("", ""))


async def start_peer_listener(
    api: PeerApi,
    *,
    host: str,
    port: int,
    keys: Sequence[str],
    tasks: TaskOwner,
    bounds: BodyBounds,
) -> tuple[web.AppRunner, int]:
    """Listen for other pods; return the runner and the port. Raises OSError."""
    app = web.Application(
        middlewares=[
            request_context,
            _require_peer(keys),
            finish_writes(tasks),
            bounded_bodies(BodyBudget(bounds)),
        ],
    )
    app.on_response_prepare.append(api.name_boot)
    app.add_routes(api.routes())
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=2.0
    )
    await runner.setup()
    try:
        await listen(runner, host, port)
    except OSError:
        await runner.cleanup()
        raise
    return runner, runner.addresses[0][1]


def _require_peer(keys: Sequence[str]) -> Middleware:
    expected = [key.encode() for key in keys]

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        offered = request.headers.get(KEY_HEADER, "").encode(errors="surrogateescape")
        matches = [hmac.compare_digest(offered, key) for key in expected]  # all, in constant time
        if not any(matches):
            raise AuthenticationError("this listener is for the pods of one cluster only")
        return await handler(request)

    return check
