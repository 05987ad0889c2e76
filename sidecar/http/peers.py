"""Pods speak to each other: requests for a session go to its owner, and its stream comes from there.

Every pod has an internal listener with a key of its own. A request is forwarded once: a pod that is not the
owner answers 421, and the sender looks the owner up again. A stream over the hop is a sequence of records,
each a number (the last event before its end), a length, and the bytes for the client, so that the pod with
the client can go on elsewhere when the owner dies, without reading what it passes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import structlog
from aiohttp import ClientConnectionResetError, hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.aiokit import TaskOwner
from sidecar.cluster.boots import Load, select_least_loaded
from sidecar.cluster.ownership import (
    OwnedElsewhereError,
    Owner,
    OwnershipLostError,
    SharedOwnership,
    select_owner,
)
from sidecar.errors import AuthenticationError, NotFoundError, OwnerUnavailableError
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies, keep_body
from sidecar.http.events import FORWARDED_AS
from sidecar.http.middleware import REQUEST_ID, finish_writes, request_context
from sidecar.http.streams import Batch, LocalStreams, Wanted
from sidecar.ids import is_id, new_id
from sidecar.managed.events.log import EventLog
from sidecar.store.interface import Store, StoreError

PREFIX = "/peer"
_KEY_HEADER = "x-sidecar-peer-key"
_ID_HEADER = "x-sidecar-forwarded-as"
_CLAIM_HEADER = "x-sidecar-may-claim"
_PASSED_ON = (
    hdrs.CONTENT_TYPE,
    hdrs.USER_AGENT,
    "traceparent",
    "tracestate",
    "anthropic-beta",
    "anthropic-version",
)
"""Headers of a request that its owner may need; the client's key stays here."""
_PASSED_BACK = (hdrs.CONTENT_TYPE, hdrs.RETRY_AFTER, "x-should-retry")

_RECORD = struct.Struct(">QI")
_THE_END = _RECORD.pack(0, 0)
"""The session is over, not only this pod."""
_SESSION_PATH = "/v1/sessions/{id}"
_FULL_CPU = 0.9
_CACHED_SECONDS = 5.0
_CACHED_OWNERS = 10_000
_POLL_SECONDS = 0.25
_CONNECT_TIMEOUT_SECONDS = 2.0
_ANSWER_TIMEOUT_SECONDS = 120.0
_RETRY_AFTER_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Peers:
    """Finds owners and forwards to them."""

    def __init__(
        self,
        *,
        ownership: SharedOwnership,
        database: Store,
        session: aiohttp.ClientSession,
        key: str,
        load: Load,
        wait_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._ownership = ownership
        self._database = database
        self._session = session
        self._key = key
        self._load = load
        self._wait_seconds = wait_seconds
        self._silence_seconds = silence_seconds
        self._owners: dict[str, tuple[Owner, float]] = {}
        self.forwarded = 0
        self.failed = 0
        """Tries to reach an owner that came to nothing."""
        self.placed_elsewhere = 0

    @property
    def is_draining(self) -> bool:
        """Whether this pod takes nothing new."""
        return self._load.is_draining

    async def locate(self, session_id: str) -> Owner | None:
        """Return the session's owner, None when it is this pod, which claims it when nobody has it.

        Raises OwnerUnavailableError, NotFoundError and StoreError.
        """
        if self._ownership.owns(session_id):
            return None
        known = self._owners.get(session_id)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        owner = await self._database.read(lambda connection: select_owner(connection, session_id))
        if owner is None and self._load.is_draining:
            return await self._other_pod(session_id)
        if owner is None or owner.boot_id == self._ownership.boot_id:
            try:
                await self._ownership.acquire(session_id)
            except OwnedElsewhereError as error:
                owner = error.owner
            else:
                return None
        if len(self._owners) >= _CACHED_OWNERS:
            self._owners.clear()
        self._owners[session_id] = owner, time.monotonic() + _CACHED_SECONDS
        return owner

    def forget(self, session_id: str) -> None:
        """Look the owner up anew next time."""
        self._owners.pop(session_id, None)

    def bound(self, route: web.RouteDef) -> web.RouteDef:
        """Return the route such that it is handled by the session's owner, if it has to be."""
        is_change = route.method not in {hdrs.METH_GET, hdrs.METH_HEAD}
        if route.path == "/v1/sessions" and is_change:
            return replace_handler(route, self._placing(route.handler))
        if route.path.startswith(_SESSION_PATH) and is_change:
            return replace_handler(route, self._forwarding(route.handler))
        return route

    def _placing(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._load.is_draining or self._load.cpu >= _FULL_CPU:
                address = await self._database.read(
                    lambda connection: select_least_loaded(connection, self._ownership.boot_id)
                )
                if address is not None:
                    owner = Owner("", address)
                    answer = await self._send(
                        owner, request, await keep_body(request, has_content=True), ""
                    )
                    if answer is not None:
                        self.placed_elsewhere += 1
                        return answer
            return await handler(request)

        return handle

    def _forwarding(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            session_id = request.match_info["id"]
            if not is_id(session_id, "sesn"):
                return await handler(request)  # which refuses it
            return await self._forward(request, session_id, handler)

        return handle

    async def _forward(
        self, request: web.Request, session_id: str, handler: Handler
    ) -> web.StreamResponse:
        give_up_at = time.monotonic() + self._wait_seconds
        forwarded_as = new_id("req")
        while True:
            try:
                owner = await self.locate(session_id)
                if owner is None:
                    return await handler(request)
            except (OwnerUnavailableError, OwnershipLostError, OwnedElsewhereError):
                owner = None
            if owner is not None:
                # From here on it may have been accepted: whoever gets it next must know it again.
                request[FORWARDED_AS] = forwarded_as
                body = await keep_body(request, has_content=True)
                answer = await self._send(owner, request, body, forwarded_as)
                if answer is not None:
                    return answer
                self.failed += 1
            self.forget(session_id)
            if time.monotonic() >= give_up_at:
                raise OwnerUnavailableError(
                    f"session {session_id}: its pod does not answer, and no other may go on with it yet",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _send(
        self, owner: Owner, request: web.Request, body: bytes, forwarded_as: str
    ) -> web.Response | None:
        """Return the owner's answer, None when there was none or it is not the owner."""
        headers = {
            name: request.headers[name] for name in _PASSED_ON if name in request.headers
        } | {_KEY_HEADER: self._key, _ID_HEADER: forwarded_as}
        if not owner.boot_id:
            headers[_CLAIM_HEADER] = "1"
        try:
            async with self._session.request(
                request.method,
                f"http://{owner.address}{PREFIX}{request.rel_url.raw_path_qs}",
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(
                    total=_ANSWER_TIMEOUT_SECONDS, sock_connect=_CONNECT_TIMEOUT_SECONDS
                ),
            ) as response:
                if response.status == 421:
                    return None
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("pod did not answer", address=owner.address, error=str(error))
            return None
        self.forwarded += 1
        if response.status >= 400:
            answer = _with_request_id(answer, request[REQUEST_ID])
        back = {name: response.headers[name] for name in _PASSED_BACK if name in response.headers}
        return web.Response(status=response.status, body=answer, headers=back)

    async def _other_pod(self, session_id: str) -> Owner:
        address = await self._database.read(
            lambda connection: select_least_loaded(connection, self._ownership.boot_id)
        )
        if address is None:
            raise OwnerUnavailableError(
                f"session {session_id}: this pod is stopping, and there is no other one",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        return Owner("", address)

    async def attach(self, owner: Owner, wanted: Wanted) -> AsyncGenerator[Batch | None, None]:
        """Yield the owner's batches as they come, and None when the session is over.

        Ends without it when the owner is gone or is not the owner any more.
        """
        query = {
            "previews": ",".join(sorted(wanted.previews)),
            "replay_finished": "1" if wanted.replay_finished else "",
            "after": "" if wanted.after is None else str(wanted.after),
            "hidden": ",".join(sorted(wanted.hidden)),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_SECONDS, sock_read=self._silence_seconds
        )
        headers = {_KEY_HEADER: self._key}
        if not owner.boot_id:
            headers[_CLAIM_HEADER] = "1"
        url = f"http://{owner.address}{PREFIX}/streams/{wanted.session_id}"
        try:
            async with self._session.get(
                url, params=query, headers=headers, timeout=timeout
            ) as response:
                if response.status != 200:
                    return
                while True:
                    seq, length = _RECORD.unpack(await response.content.readexactly(_RECORD.size))
                    if not length:
                        yield None
                        return
                    yield seq, [await response.content.readexactly(length)]
        except (aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError, OSError) as error:
            _log.debug("stream of another pod ended", address=owner.address, error=str(error))


class FollowedStreams:
    """Streams that stay open while their session changes its pod."""

    def __init__(
        self, *, peers: Peers, local: LocalStreams, log: EventLog, ownership: SharedOwnership
    ) -> None:
        self._peers = peers
        self._local = local
        self._log = log
        self._ownership = ownership
        self.moves = 0

    @asynccontextmanager
    async def open(self, wanted: Wanted) -> AsyncIterator[AsyncIterator[Batch]]:
        """Find the session, then follow it. Raises NotFoundError."""
        with contextlib.suppress(OwnerUnavailableError):
            await self._peers.locate(wanted.session_id)
        async with contextlib.aclosing(self._follow(wanted)) as batches:
            yield batches

    async def _follow(self, wanted: Wanted) -> AsyncGenerator[Batch, None]:
        session_id, silent_since = wanted.session_id, time.monotonic()
        while True:
            try:
                owner = await self._peers.locate(session_id)
                source = self._here(wanted) if owner is None else self._there(owner, wanted)
                async with contextlib.aclosing(source) as batches:
                    async for batch in batches:
                        if batch is None:
                            return
                        wanted = replace(wanted, after=batch[0])
                        silent_since = time.monotonic()
                        yield batch
                self._peers.forget(session_id)
                self.moves += 1
            except NotFoundError:
                return
            except (OwnerUnavailableError, OwnedElsewhereError, StoreError) as error:
                _log.debug("stream waits for an owner", session=session_id, error=str(error))
            # Between two owners: what is stored is shown, so that the client misses nothing.
            after, frames = await self._stored(wanted)
            wanted = replace(wanted, after=after)
            if frames:
                silent_since = time.monotonic()
                yield after, frames
            elif time.monotonic() - silent_since >= self._local.heartbeat_seconds:
                silent_since = time.monotonic()
                yield after, [b": heartbeat\n\n"]
            await asyncio.sleep(_POLL_SECONDS)

    async def _here(self, wanted: Wanted) -> AsyncGenerator[Batch | None, None]:
        async with self._local.open(wanted) as batches:
            async for batch in batches:
                yield batch
        if self._ownership.owns(wanted.session_id) or self._peers.is_draining:
            yield None

    def _there(self, owner: Owner, wanted: Wanted) -> AsyncGenerator[Batch | None, None]:
        return self._peers.attach(owner, wanted)

    async def _stored(self, wanted: Wanted) -> tuple[int, list[bytes]]:
        session_id, after = wanted.session_id, wanted.after
        if after is None:
            return await self._log.last_seq(session_id), []
        frames = []
        try:
            async for event in self._log.events_after(session_id, after):
                after = event.seq
                if event.type not in wanted.hidden:
                    frames.append(event.frame)
        except StoreError as error:
            _log.warning("stream cannot be read", session=session_id, error=str(error))
        return after, frames


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
                request[FORWARDED_AS] = request.headers[_ID_HEADER]
            return await handler(request)

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
        )
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/octet-stream"})
        with contextlib.suppress(ClientConnectionResetError):
            async with self._local.open(wanted) as batches:
                await response.prepare(request)
                async for seq, frames in batches:
                    body = b"".join(frames)
                    await response.write(_RECORD.pack(seq, len(body)))
                    await response.write(body)
            if self._ownership.owns(session_id) and not self._load.is_draining:
                await response.write(_THE_END)
            await response.write_eof()
        return response

    async def _check_owned(self, request: web.Request, session_id: str) -> None:
        if self._ownership.owns(session_id):
            return
        if request.headers.get(_CLAIM_HEADER):
            await self._ownership.acquire(session_id)
            return
        raise OwnedElsewhereError(session_id, Owner("", ""))


async def start_peer_listener(
    api: PeerApi, *, host: str, port: int, key: str, tasks: TaskOwner, bounds: BodyBounds
) -> tuple[web.AppRunner, int]:
    """Listen for other pods; return the runner and the port. Raises OSError."""
    app = web.Application(
        middlewares=[
            request_context,
            _require_peer(key),
            finish_writes(tasks),
            bounded_bodies(BodyBudget(bounds)),
        ],
    )
    app.add_routes(api.routes())
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=2.0
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, runner.addresses[0][1]


def replace_handler(route: web.RouteDef, handler: Handler) -> web.RouteDef:
    """Return the route with another handler."""
    return web.RouteDef(route.method, route.path, handler, route.kwargs)


def _require_peer(key: str) -> Middleware:
    expected = key.encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        offered = request.headers.get(_KEY_HEADER, "").encode(errors="surrogateescape")
        if not hmac.compare_digest(offered, expected):
            raise AuthenticationError("this listener is for the pods of one cluster only")
        return await handler(request)

    return check


def _with_request_id(answer: bytes, request_id: str) -> bytes:
    """Return an error's envelope with the id that this pod answers and logs."""
    try:
        envelope = json.loads(answer)
        return json.dumps({**envelope, "request_id": request_id}).encode()
    except (ValueError, TypeError):
        return answer
