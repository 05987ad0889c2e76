"""`/v1/sessions/{id}/events`: send, list, stream."""

from __future__ import annotations

import structlog
from aiohttp import ClientConnectionResetError, hdrs, web

from sidecar.errors import InvalidRequestError, NotFoundError, RateLimitedError
from sidecar.http.answers import (
    date_bounds,
    json_response,
    order_of,
    path_id,
    query_int,
    query_list,
)
from sidecar.http.bodies import read_model
from sidecar.http.middleware import REQUEST_ID
from sidecar.http.streaming import answer_in_pieces, pieces_of
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.engine import Turns
from sidecar.managed.sessions.event_list import EVENT_TYPES, EventQuery, list_events
from sidecar.store.interface import Store
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


_log = structlog.get_logger(__name__)


class EventsApi:
    """Events of sessions."""

    def __init__(
        self,
        *,
        database: Store,
        log: EventLog,
        turns: Turns,
        heartbeat_seconds: float,
        late_reader_seconds: float,
        list_bytes: int,
        max_streams: int,
        replay_pause_seconds: float,
    ) -> None:
        self._database = database
        self._log = log
        self._turns = turns
        self._heartbeat_seconds = heartbeat_seconds
        self._late_reader_seconds = late_reader_seconds
        self._list_bytes = list_bytes
        self._max_streams = max_streams
        self._replay_pause_seconds = replay_pause_seconds

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
        return json_response({"data": await self._turns.send(session_id, body.events)})

    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/sessions/{id}/events`; without `limit` as much as a page may have: LAP reads one."""
        session_id = await self._session_of(request)
        limit = None
        if "limit" in request.query:
            limit = query_int(request, "limit", default=1000, low=1, high=1000)
        types = query_list(request, "types")
        for type_ in types:
            if type_ not in EVENT_TYPES:
                raise InvalidRequestError(
                    f"types: {type_[:60]!r} is not an event type of this API", field="types"
                )
        query = EventQuery(
            limit=limit,
            order=order_of(request, default="asc"),
            page=request.query.get("page"),
            types=types,
            bounds=date_bounds(request, "created_at"),
        )
        pieces = list_events(self._database, session_id, query, max_chars=self._list_bytes)
        return await answer_in_pieces(request, pieces)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/sessions/{id}/events/stream`: stays open over many turns."""
        session_id = await self._session_of(request)
        if self._log.reader_count() >= self._max_streams:
            raise RateLimitedError(
                f"{self._max_streams} event streams are open, as many as this server serves; close one",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        previews = _previews(request)
        async with self._turns.holding(session_id) as actor:
            seat = actor.attendance.join(
                last_seq=actor.last_seq,
                is_paused=actor.is_paused,
                grace_seconds=self._late_reader_seconds,
                replay_finished=_SDK_HEADER not in request.headers,
            )
            subscription = self._log.subscribe(session_id, after=seat.after, previews=previews)
        try:
            with subscription as reader:
                if actor.record.status == "terminated":
                    reader.close()
                response = web.StreamResponse(headers=STREAM_HEADERS)
                response.headers["request-id"] = request[REQUEST_ID]
                await response.prepare(request)
                # Some intermediaries pass headers on only with the first byte of the body.
                await response.write(b": stream open\n\n")
                reader.begin_after(await seat.settle(self._replay_pause_seconds))
                async for frames in reader.batches(self._heartbeat_seconds):
                    for piece in pieces_of(frames):
                        await response.write(piece)
                await response.write_eof()
        except ClientConnectionResetError:
            _log.debug("stream closed by its reader", session=session_id)
        finally:
            actor.attendance.leave(seat)
        return response

    async def _session_of(self, request: web.Request) -> str:
        """Return the session id; a thread in the path must be that session's own."""
        session_id = path_id(request, "sesn", "session")
        if "thread_id" in request.match_info:
            thread_id = path_id(request, "sthr", "thread", name="thread_id")
            actor = await self._turns.actor(session_id)
            if actor.record.thread_id != thread_id:
                raise NotFoundError(f"thread {thread_id} does not exist in session {session_id}")
        return session_id


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
