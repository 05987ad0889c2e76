"""`/v1/sessions` and the one thread that each session has."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from sidecar.errors import InvalidRequestError, NotFoundError, TooManyStoredError
from sidecar.http import declare
from sidecar.http.operations import Answer, Anything, SessionId, ThreadId
from sidecar.http.queries import (
    MAX_VALUES,
    AgentVersion,
    CreatedAtBounds,
    Flag,
    LargeLimit,
    LargeListQuery,
    OneOf,
    OrderParameter,
    QueryModel,
)
from sidecar.managed.sessions.representation import thread_to_api
from sidecar.managed.sessions.service import Filters, Sessions
from sidecar.managed.turns.state import SessionRecord
from sidecar.wire.objects.agents import Deleted
from sidecar.wire.objects.common import Page, PageBothWays
from sidecar.wire.objects.sessions import SessionObject, SessionStatus, ThreadObject
from sidecar.wire.sessions import SessionCreate, SessionUpdate

_THREADS = "/v1/sessions/{id}/threads"
_THREAD = _THREADS + "/{thread_id}"

Statuses = Annotated[
    list[Annotated[str, OneOf(get_args(SessionStatus))]], Field(max_length=MAX_VALUES)
]


class SessionsQuery(LargeListQuery, CreatedAtBounds):
    """Which sessions are listed."""

    order: OrderParameter = "desc"
    statuses: Statuses = Field(default_factory=list, alias="statuses[]")
    agent_id: str | None = None
    agent_version: AgentVersion | None = Field(None, description="only with `agent_id`")
    include_archived: Flag = False
    deployment_id: str | None = Field(None, description="not offered: nothing is found")
    memory_store_id: str | None = Field(None, description="not offered: nothing is found")


class ThreadsQuery(QueryModel):
    """Which threads of a session are listed."""

    limit: LargeLimit = Field(1000, description="the most items of a page; there is one")
    page: str | None = Field(None, description="there is one page, so that no cursor is right")
    statuses: Statuses = Field(default_factory=list, alias="statuses[]")


class SessionsApi:
    """Sessions."""

    def __init__(self, *, sessions: Sessions) -> None:
        self._sessions = sessions

    @declare.post(
        "/v1/sessions",
        response=SessionObject,
        raises=(NotFoundError, TooManyStoredError),
        has_content=True,
    )
    async def create(self, body: SessionCreate) -> Answer:
        """Create a session; it starts at once when it has `initial_events`."""
        return await self._sessions.create(body)

    @declare.get("/v1/sessions", response=PageBothWays[SessionObject])
    async def list(self, query: SessionsQuery) -> Answer:
        """List sessions, newest first unless `order` is `asc`."""
        paging = query.paging(query.order)
        query.narrow(paging)
        if query.agent_version is not None and query.agent_id is None:
            raise InvalidRequestError(
                "agent_version: must be sent with agent_id", field="agent_version"
            )
        if query.deployment_id is not None or query.memory_store_id is not None:
            return {"data": [], "next_page": None, "prev_page": None}
        filters = Filters(
            statuses=query.statuses,
            agent_id=query.agent_id,
            agent_version=query.agent_version,
            include_archived=query.include_archived,
        )
        return await self._sessions.list(paging, filters)

    @declare.get("/v1/sessions/{id}", response=SessionObject)
    async def retrieve(self, session_id: SessionId) -> Answer:
        """Retrieve a session."""
        return await self._sessions.get(session_id)

    @declare.post("/v1/sessions/{id}", response=SessionObject)
    async def update(self, session_id: SessionId, body: SessionUpdate) -> Answer:
        """Update a session's title or metadata, or (while it is idle) its tools and MCP servers."""
        return await self._sessions.update(session_id, body)

    @declare.delete("/v1/sessions/{id}", response=Deleted)
    async def delete(self, session_id: SessionId) -> Answer:
        """Delete a session that is not running, with its events and its files."""
        await self._sessions.delete(session_id)
        return {"id": session_id, "type": "session_deleted"}

    @declare.post("/v1/sessions/{id}/archive", response=SessionObject, body=Anything)
    async def archive(self, session_id: SessionId) -> Answer:
        """End a session that is not running for good; its events stay readable."""
        return await self._sessions.archive(session_id)

    @declare.get(_THREADS, response=Page[ThreadObject])
    async def threads(self, session_id: SessionId, query: ThreadsQuery) -> Answer:
        """List the threads of a session: the primary one."""
        record = await self._sessions.record(session_id)
        if query.page:
            raise InvalidRequestError(
                "page: not a cursor of this list, which has one page", field="page"
            )
        shown = not query.statuses or record.status in query.statuses
        return {"data": [thread_to_api(record)] if shown else [], "next_page": None}

    @declare.get(_THREAD, response=ThreadObject)
    async def thread(self, session_id: SessionId, thread_id: ThreadId) -> Answer:
        """Retrieve the thread of a session."""
        return thread_to_api(await self._record_of_thread(session_id, thread_id))

    @declare.post(_THREAD + "/archive", response=ThreadObject, body=Anything)
    async def archive_thread(self, session_id: SessionId, thread_id: ThreadId) -> Answer:
        """Archive the thread of a session: refused before the session is archived, which does it."""
        record = await self._record_of_thread(session_id, thread_id)
        if record.archived_at is None:
            raise InvalidRequestError(
                f"thread {record.thread_id} is the primary thread and cannot be archived alone; "
                f"archive session {record.id}"
            )
        return thread_to_api(record)

    async def _record_of_thread(self, session_id: str, thread_id: str) -> SessionRecord:
        record = await self._sessions.record(session_id)
        if thread_id != record.thread_id:
            raise NotFoundError(f"thread {thread_id} does not exist in session {record.id}")
        return record
