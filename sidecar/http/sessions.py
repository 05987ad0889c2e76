"""`/v1/sessions` and the one thread that each session has."""

from __future__ import annotations

from aiohttp import web

from sidecar.errors import InvalidRequestError, NotFoundError
from sidecar.http.bodies import read_model, read_object
from sidecar.http.queries import (
    created_at_filters,
    order_of,
    page_query,
    path_id,
    query_bool,
    query_int,
    query_list,
    query_version,
)
from sidecar.http.responses import json_response
from sidecar.managed.sessions.representation import thread_to_api
from sidecar.managed.sessions.service import Filters, Sessions
from sidecar.managed.turns.state import SessionRecord
from sidecar.wire.sessions import SessionCreate, SessionUpdate

MAX_THREADS = 1000
"""The largest `limit` of a list of threads; there is never more than one."""

_STATUSES = ("rescheduling", "running", "idle", "terminated")


class SessionsApi:
    """Sessions."""

    def __init__(self, *, sessions: Sessions) -> None:
        self._sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/sessions", self.create),
            web.get("/v1/sessions", self.list),
            web.get("/v1/sessions/{id}", self.retrieve),
            web.post("/v1/sessions/{id}", self.update),
            web.delete("/v1/sessions/{id}", self.delete),
            web.post("/v1/sessions/{id}/archive", self.archive),
            web.get("/v1/sessions/{id}/threads", self.threads),
            web.get("/v1/sessions/{id}/threads/{thread_id}", self.thread),
            web.post("/v1/sessions/{id}/threads/{thread_id}/archive", self.archive_thread),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions`."""
        body = await read_model(request, SessionCreate, has_content=True)
        return json_response(await self._sessions.create(body))

    async def retrieve(self, request: web.Request) -> web.Response:
        """`GET /v1/sessions/{id}`."""
        return json_response(await self._sessions.get(path_id(request, "sesn", "session")))

    async def update(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions/{id}`."""
        session_id = path_id(request, "sesn", "session")
        body = await read_model(request, SessionUpdate)
        return json_response(await self._sessions.update(session_id, body))

    async def archive(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions/{id}/archive`."""
        session_id = path_id(request, "sesn", "session")
        await read_object(request, allow_empty=True)
        return json_response(await self._sessions.archive(session_id))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/sessions/{id}`."""
        session_id = path_id(request, "sesn", "session")
        await self._sessions.delete(session_id)
        return json_response({"id": session_id, "type": "session_deleted"})

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/sessions`, newest first unless `order=asc`."""
        query = page_query(request, highest=1000, order=order_of(request, default="desc"))
        created_at_filters(request, query)
        statuses = _statuses(request)
        version = query_version(request, "agent_version")
        if version is not None and "agent_id" not in request.query:
            raise InvalidRequestError(
                "agent_version: must be sent with agent_id", field="agent_version"
            )
        if {"deployment_id", "memory_store_id"} & request.query.keys():
            return json_response({"data": [], "next_page": None, "prev_page": None})
        filters = Filters(
            statuses=statuses,
            agent_id=request.query.get("agent_id"),
            agent_version=version,
            include_archived=query_bool(request, "include_archived"),
        )
        return json_response(await self._sessions.list(query, filters))

    async def threads(self, request: web.Request) -> web.Response:
        """`GET /v1/sessions/{id}/threads`: the primary thread."""
        record = await self._sessions.record(path_id(request, "sesn", "session"))
        query_int(request, "limit", default=MAX_THREADS, low=1, high=MAX_THREADS)
        if request.query.get("page"):
            raise InvalidRequestError(
                "page: not a cursor of this list, which has one page", field="page"
            )
        statuses = _statuses(request)
        shown = not statuses or record.status in statuses
        return json_response({"data": [thread_to_api(record)] if shown else [], "next_page": None})

    async def thread(self, request: web.Request) -> web.Response:
        """`GET /v1/sessions/{id}/threads/{thread_id}`."""
        return json_response(thread_to_api(await self._record_of_thread(request)))

    async def archive_thread(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions/{id}/threads/{thread_id}/archive`: the thread is archived with its session."""
        await read_object(request, allow_empty=True)
        record = await self._record_of_thread(request)
        if record.archived_at is None:
            raise InvalidRequestError(
                f"thread {record.thread_id} is the primary thread and cannot be archived alone; "
                f"archive session {record.id}"
            )
        return json_response(thread_to_api(record))

    async def _record_of_thread(self, request: web.Request) -> SessionRecord:
        record = await self._sessions.record(path_id(request, "sesn", "session"))
        thread_id = path_id(request, "sthr", "thread", name="thread_id")
        if thread_id != record.thread_id:
            raise NotFoundError(f"thread {thread_id} does not exist in session {record.id}")
        return record


def _statuses(request: web.Request) -> list[str]:
    statuses = query_list(request, "statuses")
    for status in statuses:
        if status not in _STATUSES:
            raise InvalidRequestError(
                f"statuses: {status[:40]!r} is none of {', '.join(_STATUSES)}", field="statuses"
            )
    return statuses
