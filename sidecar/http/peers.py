"""Finds the pod that owns a session, and forwards requests and streams to it; see `peer_protocol`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator

import aiohttp
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from sidecar.cluster.boots import Load
from sidecar.cluster.ownership import (
    OwnedElsewhereError,
    Owner,
    OwnershipLostError,
    SharedOwnership,
)
from sidecar.errors import NotFoundError, OwnerUnavailableError
from sidecar.http.bodies import keep_body
from sidecar.http.events import FORWARDED_AS, IS_REPEATED
from sidecar.http.middleware import REQUEST_ID
from sidecar.http.peer_protocol import (
    BOOT_HEADER,
    CLAIM_HEADER,
    ID_HEADER,
    KEY_HEADER,
    PREFIX,
    RECORD,
    REPEATED_HEADER,
)
from sidecar.http.streams import JOINED, Batch, Wanted
from sidecar.ids import is_id, new_id

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
        session: aiohttp.ClientSession,
        key: str,
        load: Load,
        wait_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._ownership = ownership
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
        """Return the session's owner, None when it is this pod, which claims it when no live pod owns it.

        Raises OwnerUnavailableError, NotFoundError and StoreError.
        """
        if self._ownership.owns(session_id):
            return None
        known = self._owners.get(session_id)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        owner = await self._ownership.owner_of(session_id)
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

    async def is_refused_by(self, owner: Owner) -> bool:
        """Whether that live pod does not take our key. One that does not answer in time did not say so."""
        try:
            async with self._session.get(
                f"http://{owner.address}{PREFIX}/",
                headers={KEY_HEADER: self._key},
                timeout=aiohttp.ClientTimeout(total=_CONNECT_TIMEOUT_SECONDS),
            ) as response:
                is_its_own = response.headers.get(BOOT_HEADER) == owner.boot_id
                return is_its_own and response.status == 401
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("pod did not answer", address=owner.address, error=str(error))
            return False

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
                owner = await self._ownership.least_loaded()
                if owner is not None:
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
            except NotFoundError:
                if request.method == hdrs.METH_DELETE and request.get(IS_REPEATED, False):
                    # The owner did it, and died before it could say so.
                    return web.json_response({"id": session_id, "type": "session_deleted"})
                raise
            if owner is not None:
                body = await keep_body(request, has_content=True)
                answer = await self._send(owner, request, body, forwarded_as)
                # It may be accepted and the answer lost: the next receiver, perhaps us, must recognise it.
                request[FORWARDED_AS], request[IS_REPEATED] = forwarded_as, True
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
        } | {KEY_HEADER: self._key, ID_HEADER: forwarded_as}
        if not owner.boot_id:
            headers[CLAIM_HEADER] = "1"
        if request.get(IS_REPEATED, False):
            headers[REPEATED_HEADER] = "1"
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
                if not _is_answer(owner, response):
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
        owner = await self._ownership.least_loaded()
        if owner is None:
            raise OwnerUnavailableError(
                f"session {session_id}: this pod is stopping, and there is no other one",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        return owner

    async def attach(self, owner: Owner, wanted: Wanted) -> AsyncGenerator[Batch | None, None]:
        """Yield `JOINED` when the owner counts this reader, its batches as they come, and None when the
        session is over.

        Ends without it when the owner is gone or is not the owner any more.
        """
        query = {
            "previews": ",".join(sorted(wanted.previews)),
            "replay_finished": "1" if wanted.replay_finished else "",
            "after": "" if wanted.after is None else str(wanted.after),
            "hidden": ",".join(sorted(wanted.hidden)),
            "is_watching": "1" if wanted.is_watching else "",
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_SECONDS, sock_read=self._silence_seconds
        )
        headers = {KEY_HEADER: self._key}
        if not owner.boot_id:
            headers[CLAIM_HEADER] = "1"
        url = f"http://{owner.address}{PREFIX}/streams/{wanted.session_id}"
        try:
            async with self._session.get(
                url, params=query, headers=headers, timeout=timeout
            ) as response:
                if not _is_answer(owner, response) or response.status != 200:
                    return
                yield JOINED
                while True:
                    seq, length = RECORD.unpack(await response.content.readexactly(RECORD.size))
                    if not length:
                        yield None
                        return
                    yield seq, [await response.content.readexactly(length)]
        except (aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError, OSError) as error:
            _log.debug("stream of another pod ended", address=owner.address, error=str(error))


def _is_answer(owner: Owner, response: aiohttp.ClientResponse) -> bool:
    """Whether it is the owner's own; anything else counts as none, and the owner is looked up again."""
    boot_id = response.headers.get(BOOT_HEADER)
    if boot_id is None or (owner.boot_id and boot_id != owner.boot_id):
        # Its address is another's by now: that of a pod, or of a program that knows nothing of this.
        _log.warning("another program answers at a pod's address", address=owner.address)
        return False
    if response.status == 401:
        _log.error(
            "a pod refuses our SIDECAR_CLUSTER_KEY: it must be the same in all pods",
            address=owner.address,
        )
    return response.status not in {401, 421}


def replace_handler(route: web.RouteDef, handler: Handler) -> web.RouteDef:
    """Return the route with another handler."""
    return web.RouteDef(route.method, route.path, handler, route.kwargs)


def _with_request_id(answer: bytes, request_id: str) -> bytes:
    """Return an error's envelope with the id that this pod answers and logs."""
    try:
        envelope = json.loads(answer)
        return json.dumps({**envelope, "request_id": request_id}).encode()
    except (ValueError, TypeError):
        return answer
