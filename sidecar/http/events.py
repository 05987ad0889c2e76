"""`/v1/sessions/{id}/events`: send, list, stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated

import structlog
from aiohttp import ClientConnectionResetError, hdrs, web
from pydantic import Field

from sidecar.errors import ConflictError, NotFoundError, RateLimitedError
from sidecar.http import declare
from sidecar.http.middleware import REQUEST_ID
from sidecar.http.operations import Content, HeaderParameter, SessionId, ThreadId
from sidecar.http.queries import (
    MAX_VALUES,
    CreatedAtBounds,
    LargeLimit,
    OneOf,
    OrderParameter,
    QueryModel,
)
from sidecar.http.streaming import PIECE_BYTES, answer_in_pieces, write_frames
from sidecar.http.streams import Streams, Wanted
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.event_list import BOOKKEEPING, EVENT_TYPES, EventQuery
from sidecar.wire.objects.events import AcceptedEvents, EventPage, StreamFrame
from sidecar.wire.sessions import EventsSend

_EVENTS = "/v1/sessions/{id}/events"
_THREAD = "/v1/sessions/{id}/threads/{thread_id}"
_RETRY_AFTER_SECONDS = 5.0
_SDK = HeaderParameter(
    "x-stainless-lang",
    "Every official SDK sends it. Without it (and without `event_deltas[]`) events about model requests, "
    "tokens and the thread are left out, and a new stream begins with the events since the last idle.",
)
"""See `sidecar.managed.events.replay_policy` for why it matters to a stream."""
_STREAM = Content(
    "Frames `event: <type>`, `data: <the event as one line of JSON>`; comments keep the connection alive.",
    StreamFrame,
    "text/event-stream",
)

EventTypes = Annotated[
    list[Annotated[str, OneOf(tuple(sorted(EVENT_TYPES)), "an event type of this API")]],
    Field(max_length=MAX_VALUES),
]
Previews = Annotated[
    list[Annotated[str, OneOf(("agent.message", "agent.thinking"))]], Field(max_length=MAX_VALUES)
]


class StreamQuery(QueryModel):
    """Which events are sent."""

    types: EventTypes = Field(default_factory=list, alias="types[]", description="only of these")
    event_deltas: Previews = Field(
        default_factory=list,
        alias="event_deltas[]",
        description="whose text a stream shows while it is written",
    )


class EventsQuery(StreamQuery, CreatedAtBounds):
    """The same of a list; the bounds are on `processed_at`."""

    limit: LargeLimit | None = Field(None, description="the most events of a page")
    order: OrderParameter = "asc"
    page: str | None = Field(None, description="`next_page` of an earlier answer")


STREAM_HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-cache",
    "x-accel-buffering": "no",
}

IS_WATCHING = web.RequestKey("is_watching", bool)
"""Set for a reader that only looks on: it does not count for what other streams are given."""

FORWARDED_AS = web.RequestKey("forwarded_as", str)
"""The id under which another pod forwards a request, also when it does so again."""
IS_REPEATED = web.RequestKey("is_repeated", bool)
"""Set where a request may have been accepted under that id before."""

_log = structlog.get_logger(__name__)

ListEvents = Callable[[str, EventQuery], AsyncIterator[bytes | memoryview]]
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

    @declare.post(
        _EVENTS, response=AcceptedEvents, raises=(ConflictError, RateLimitedError), has_content=True
    )
    async def send(
        self, request: web.Request, session_id: SessionId, body: EventsSend
    ) -> web.StreamResponse:
        """Send events. They are durable when this is answered, and not yet processed."""
        accepted = await self._engine.send(
            session_id,
            body.events,
            request_id=request.get(FORWARDED_AS),
            is_repeated=request.get(IS_REPEATED, False),
        )
        return await answer_in_pieces(request, _document([event.text for event in accepted]))

    @declare.get(_EVENTS, response=EventPage, headers=(_SDK,))
    @declare.get(_THREAD + "/events", response=EventPage, headers=(_SDK,), name="list_of_thread")
    async def list(
        self,
        request: web.Request,
        session_id: SessionId,
        thread_id: ThreadId | None,
        query: EventsQuery,
    ) -> web.StreamResponse:
        """List the events of a session, oldest first unless `order` is `desc`.

        Without `limit` a page has as many events as fit: LAP reads one page. Events that are accepted and not
        yet processed come last, with `processed_at` null.
        """
        await self._check_thread(session_id, thread_id)
        wanted = EventQuery(
            limit=query.limit,
            order=query.order,
            page=query.page,
            types=query.types,
            hidden=self._hidden_from(request, query),
            bounds=query.bounds(),
        )
        return await answer_in_pieces(request, self._list_events(session_id, wanted))

    @declare.get(
        _EVENTS + "/stream",
        others={200: _STREAM},
        raises=(RateLimitedError,),
        headers=(_SDK,),
        has_head=False,
    )
    @declare.get(
        _THREAD + "/stream",
        others={200: _STREAM},
        raises=(RateLimitedError,),
        headers=(_SDK,),
        has_head=False,
        name="stream_of_thread",
    )
    async def stream(
        self,
        request: web.Request,
        session_id: SessionId,
        thread_id: ThreadId | None,
        query: StreamQuery,
    ) -> web.StreamResponse:
        """Follow a session as a stream of server-sent events; it stays open over many turns."""
        await self._check_thread(session_id, thread_id)
        wanted = Wanted(
            session_id=session_id,
            previews=frozenset(query.event_deltas),
            replay_finished=_SDK.name not in request.headers,
            hidden=EVENT_TYPES.difference(query.types)
            if query.types
            else self._hidden_from(request, query),
            is_watching=request.get(IS_WATCHING, False),
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
                    await write_frames(response, frames, is_ascii=True)
                await response.write_eof()
        except ClientConnectionResetError:
            _log.debug("stream closed by its reader", session=wanted.session_id)
        finally:
            self.open_streams -= 1
        return response

    def _hidden_from(self, request: web.Request, query: StreamQuery) -> frozenset[str]:
        """Return what the caller is not sent. One that asks for previews knows this API."""
        is_sdk = _SDK.name in request.headers
        knows_all = self._shows_bookkeeping or is_sdk or bool(query.event_deltas)
        return frozenset() if knows_all else BOOKKEEPING

    async def _check_thread(self, session_id: str, thread_id: str | None) -> None:
        """Raise NotFoundError unless the thread of the path, if it has one, is the session's own."""
        if thread_id is not None:
            record = await self._engine.record(session_id)
            if record.thread_id != thread_id:
                raise NotFoundError(f"thread {thread_id} does not exist in session {session_id}")


async def _document(texts: list[str]) -> AsyncIterator[bytes | memoryview]:
    """Yield `{"data": [...]}` with the events as they are stored, in one piece unless they are large."""
    size, opening = 0, '{"data":['
    pieces: list[str] = []
    for text in texts:
        pieces.append(opening)
        opening = ","
        for start in range(0, len(text), PIECE_BYTES):
            pieces.append(text[start : start + PIECE_BYTES])
            size += len(pieces[-1])
            if size >= PIECE_BYTES:
                yield "".join(pieces).encode()
                size, pieces = 0, []
    yield "".join((*pieces, "]}")).encode()
