"""`/v1/sessions/{id}/events`: send, list, stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import structlog
from aiohttp import ClientConnectionResetError, hdrs, web

from sidecar.errors import InvalidRequestError, NotFoundError, RateLimitedError
from sidecar.http.bodies import read_model
from sidecar.http.middleware import REQUEST_ID
from sidecar.http.queries import (
    date_bounds,
    order_of,
    path_id,
    query_int,
    query_list,
)
from sidecar.http.responses import json_response
from sidecar.http.streaming import answer_in_pieces, pieces_of
from sidecar.http.streams import Streams, Wanted
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.event_list import BOOKKEEPING, EVENT_TYPES, EventQuery
from sidecar.wire.sessions import EventsSend

_PREVIEWED = ("agent.message", "agent.thinking")
_MAX_PREVIEW_VALUES = 100
_RETRY_AFTER_SECONDS = 5.0
_SDK_HEADER = "x-stainless-lang"
"""Every official SDK sends it; see `sidecar.managed.events.replay_policy` for why it matters."""

STREAM_HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-cache",
    "x-accel-buffering": "no",
}

FORWARDED_AS = web.RequestKey("forwarded_as", str)
"""The id under which another pod forwards a request, also when it does so again."""

_log = structlog.get_logger(__name__)

ListEvents = Callable[[str, EventQuery], AsyncIterator[bytes]]
"""Yields a page of a session's events as JSON, in pieces. Raises NotFoundError before the first."""


class EventsApi:
    """Events of sessions."""

    def __init__(
        self,
        *,
        engine: SessionEngine,
        streams: Streams,
        list_events: ListEvents,
        max_streams: int,
        shows_bookkeeping: bool,
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._list_events = list_events
        self._max_streams = max_streams
        self._shows_bookkeeping = shows_bookkeeping
        self.open_streams = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; the thread's are the session's under another name.

        A stream has no HEAD: it would never end, and count as a reader.
        """
        return [
            web.post("/v1/sessions/{id}/events", self.send),
            web.get("/v1/sessions/{id}/events", self.list),
            web.get("/v1/sessions/{id}/events/stream", self.stream, allow_head=False),
            web.get("/v1/sessions/{id}/threads/{thread_id}/events", self.list),
            web.get("/v1/sessions/{id}/threads/{thread_id}/stream", self.stream, allow_head=False),
        ]

    async def send(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions/{id}/events`: answers once the events are durable, not processed."""
        session_id = path_id(request, "sesn", "session")
        body = await read_model(request, EventsSend, has_content=True)
        accepted = await self._engine.send(
            session_id, body.events, request_id=request.get(FORWARDED_AS)
        )
        return json_response({"data": accepted})

    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/sessions/{id}/events`; without `limit` as much as a page may have: LAP reads one."""
        session_id = await self._session_of(request)
        limit = None
        if "limit" in request.query:
            limit = query_int(request, "limit", default=1000, low=1, high=1000)
        types = _types(request)
        query = EventQuery(
            limit=limit,
            order=order_of(request, default="asc"),
            page=request.query.get("page"),
            types=types,
            hidden=self._hidden_from(request),
            bounds=date_bounds(request, "created_at"),
        )
        return await answer_in_pieces(request, self._list_events(session_id, query))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/sessions/{id}/events/stream`: stays open over many turns."""
        types = _types(request)
        wanted = Wanted(
            session_id=await self._session_of(request),
            previews=_previews(request),
            replay_finished=_SDK_HEADER not in request.headers,
            hidden=EVENT_TYPES.difference(types) if types else self._hidden_from(request),
        )
        if self.open_streams >= self._max_streams:
            raise RateLimitedError(
                f"{self._max_streams} event streams are open, as many as this server serves; close one",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self.open_streams += 1
        try:
            async with self._streams.open(wanted) as batches:
                response = web.StreamResponse(headers=STREAM_HEADERS)
                response.headers["request-id"] = request[REQUEST_ID]
                await response.prepare(request)
                # Some intermediaries pass headers on only with the first byte of the body.
                await response.write(b": stream open\n\n")
                async for _, frames in batches:
                    for piece in pieces_of(frames):
                        await response.write(piece)
                await response.write_eof()
        except ClientConnectionResetError:
            _log.debug("stream closed by its reader", session=wanted.session_id)
        finally:
            self.open_streams -= 1
        return response

    def _hidden_from(self, request: web.Request) -> frozenset[str]:
        """Return what the caller is not sent. One that asks for previews knows this API."""
        is_sdk = _SDK_HEADER in request.headers
        knows_all = self._shows_bookkeeping or is_sdk or bool(_previews(request))
        return frozenset() if knows_all else BOOKKEEPING

    async def _session_of(self, request: web.Request) -> str:
        """Return the session id; a thread in the path must be that session's own."""
        session_id = path_id(request, "sesn", "session")
        if "thread_id" in request.match_info:
            thread_id = path_id(request, "sthr", "thread", name="thread_id")
            record = await self._engine.record(session_id)
            if record.thread_id != thread_id:
                raise NotFoundError(f"thread {thread_id} does not exist in session {session_id}")
        return session_id


def _types(request: web.Request) -> list[str]:
    types = query_list(request, "types")
    for type_ in types:
        if type_ not in EVENT_TYPES:
            raise InvalidRequestError(
                f"types: {type_[:60]!r} is not an event type of this API", field="types"
            )
    return types


def _previews(request: web.Request) -> frozenset[str]:
    values = query_list(request, "event_deltas")
    if len(values) > _MAX_PREVIEW_VALUES:
        raise InvalidRequestError(
            f"event_deltas: at most {_MAX_PREVIEW_VALUES} values", field="event_deltas"
        )
    for value in values:
        if value not in _PREVIEWED:
            raise InvalidRequestError(
                f"event_deltas: {value[:60]!r} is none of {', '.join(_PREVIEWED)}",
                field="event_deltas",
            )
    return frozenset(values)
