"""Sessions as a resource: create, read, change, list, archive, delete. Their turns are in `turns`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from sidecar.cluster.ownership import Ownership
from sidecar.errors import ChildError, InvalidRequestError
from sidecar.ids import is_id, new_id
from sidecar.managed.agents import environments
from sidecar.managed.agents.agents import Agent, Agents, merge_tools, model_answer
from sidecar.managed.child.sessions import ChildSessions
from sidecar.managed.common import pagination, timestamps
from sidecar.managed.common.metadata import merge_metadata
from sidecar.managed.common.resource_uses import note_uses
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.managed.events.event import Draft, sse_frame, to_json
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.representation import session_to_api
from sidecar.managed.sessions.table import insert_session, read_row, save_body, select_session
from sidecar.managed.turns.state import CURRENT_RULES, PACKAGES, RULES, STALE, SessionRecord
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.managed.workspaces.directories import remove_directory
from sidecar.managed.workspaces.packages import INSTALLED
from sidecar.managed.workspaces.repositories import Repositories
from sidecar.model_requests import Usage
from sidecar.naming import ModelRef
from sidecar.store.interface import Connection, Store
from sidecar.wire.sessions import AgentWithOverrides, SessionCreate, SessionUpdate

CheckVaults = Callable[[Sequence[str]], Awaitable[None]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to."""

    statuses: Sequence[str] = ()
    agent_id: str | None = None
    agent_version: int | None = None
    include_archived: bool = False


@dataclass(frozen=True, slots=True)
class RecordPage:
    """A page of sessions, and the cursors beside it (None at the ends)."""

    records: Sequence[SessionRecord]
    next_page: str | None
    prev_page: str | None


class Sessions:
    """The sessions of all agents."""

    def __init__(
        self,
        *,
        database: Store,
        log: EventLog,
        engine: SessionEngine,
        ownership: Ownership | None = None,
        agents: Agents,
        child_sessions: ChildSessions,
        resolve_model: Callable[[str], Awaitable[ModelRef]],
        check_vaults: CheckVaults,
        repositories: Repositories,
        limits: StoredLimits | None = None,
        on_deleted: Callable[[], None] | None = None,
    ) -> None:
        self._database = database
        self._limits = limits or StoredLimits()
        self._log = log
        self._engine = engine
        self._ownership = ownership or Ownership()
        self._agents = agents
        self._child_sessions = child_sessions
        self._resolve_model = resolve_model
        self._check_vaults = check_vaults
        self._repositories = repositories
        self._on_deleted = on_deleted

    async def create(self, request: SessionCreate) -> dict[str, Any]:
        """Store a session with a snapshot of its agent; start it when it has initial events.

        Raises InvalidRequestError for an archived agent or environment and for overrides that do not
        fit, NotFoundError for unknown ids.
        """
        agent, snapshot, model_ref = await self._effective_agent(request)
        await self._check_vaults(request.vault_ids or ())
        plan = self._repositories.plan(request.resources or ())
        now = timestamps.now()
        record = SessionRecord(
            id=new_id("sesn"),
            agent_id=agent.id,
            agent_version=agent.version,
            environment_id=request.environment_id,
            thread_id=new_id("sthr"),
            model_ref=model_ref,
            status="idle",
            created_at=now,
            updated_at=now,
            archived_at=None,
            last_seq=0,
            last_processed_us=0,
            child_session_id=None,
            usage=Usage(),
            active_us=0,
            turn=None,
            body={
                "agent": snapshot,
                "title": request.title,
                "metadata": dict(request.metadata or {}),
                "resources": plan.answers,
                "vault_ids": list(request.vault_ids or ()),
                RULES: CURRENT_RULES,
            },
        )

        def insert(connection: Connection) -> None:
            self._limits.check(connection, "sessions")
            record.body[PACKAGES] = _packages_of(connection, request.environment_id)
            insert_session(connection, record)
            note_uses(connection, _used_by(record), now)
            self._ownership.claim_new(connection, record.id)
            plan.insert(connection, record.id)

        await self._engine.create(record, insert, request.initial_events or ())
        return await self.get(record.id)

    async def get(self, session_id: str) -> dict[str, Any]:
        """Return the session. Raises NotFoundError."""
        return session_to_api(await self.record(session_id))

    async def record(self, session_id: str) -> SessionRecord:
        """Return the session's committed row. Raises NotFoundError."""
        return await self._database.read(lambda connection: select_session(connection, session_id))

    async def custom_tools(self, session_id: str) -> list[dict[str, Any]]:
        """Return the tools that the session's client executes. Raises NotFoundError."""
        return ToolPlan((await self.record(session_id)).agent["tools"], ()).custom

    async def web_options(self, session_id: str) -> dict[str, Mapping[str, Any]]:
        """Return the session's web tools with their options. Raises NotFoundError."""
        return ToolPlan((await self.record(session_id)).agent["tools"], ()).web

    async def update(self, session_id: str, request: SessionUpdate) -> dict[str, Any]:
        """Change title, metadata, or (when idle) the session's own tools and MCP servers."""
        async with self._engine.live.holding(session_id) as actor:
            record, body = actor.record, dict(actor.record.body)
            if record.archived_at is not None:
                raise InvalidRequestError(f"session {session_id} is archived and cannot be changed")
            if "title" in request.model_fields_set:
                body["title"] = request.title
            if request.metadata is not None:
                body["metadata"] = merge_metadata(body["metadata"], request.metadata)
            if request.agent is not None:
                if record.status != "idle" or record.turn is not None:
                    raise InvalidRequestError(
                        "agent: can only be changed while the session is idle; interrupt it first",
                        field="agent",
                    )
                sent = request.agent.model_fields_set
                changed = merge_tools(
                    body["agent"], request.agent.tools, request.agent.mcp_servers, sent
                )
                changed["tools"] = self._agents.offered(changed["tools"])
                body["agent"] = {**body["agent"], **changed}
            changes = {
                key: body[key]
                for key in ("title", "metadata", "agent")
                if body[key] != record.body[key]
            }
            if not changes:
                return session_to_api(record)
            record.body = body
            actor.plan = ToolPlan(record.agent["tools"], record.agent["mcp_servers"])
            if "agent" in changes:
                record.body[STALE] = True
            await actor.commit(
                [Draft("session.updated", changes)], also=lambda c: save_body(c, record)
            )
            return session_to_api(record)

    async def list(self, query: pagination.Query, filters: Filters) -> pagination.Envelope:
        """Return a page with `next_page` and `prev_page`."""
        _narrow(query, filters)

        def select(connection: Connection) -> pagination.Envelope:
            page = pagination.fetch_page(connection, query)
            envelope = page.envelope(lambda row: session_to_api(read_row(row)))
            envelope["prev_page"] = page.prev_page
            return envelope

        return await self._database.read(select)

    async def records(self, query: pagination.Query, filters: Filters) -> RecordPage:
        """Return the page that `list` answers as rows, for the console."""
        _narrow(query, filters)

        def select(connection: Connection) -> RecordPage:
            page = pagination.fetch_page(connection, query)
            return RecordPage([read_row(row) for row in page.rows], page.next_page, page.prev_page)

        return await self._database.read(select)

    async def archive(self, session_id: str) -> dict[str, Any]:
        """End the session for good; its history stays readable. Raises InvalidRequestError while running.

        Calls that wait for the client are closed with error results; messages that wait are never run.
        """
        await self._engine.dismiss(
            session_id, lambda record: _refuse_while_running(record, "archived")
        )
        async with self._engine.live.holding(session_id) as actor:
            if actor.record.archived_at is None:
                _refuse_while_running(actor.record, "archived")
                await actor.terminate()
                await self._release(actor.record)
            return session_to_api(actor.record)

    async def delete(self, session_id: str) -> None:
        """Delete the session, its history and its directory. Raises InvalidRequestError while running."""
        await self._engine.dismiss(
            session_id, lambda record: _refuse_while_running(record, "deleted")
        )
        async with self._engine.live.holding(session_id) as actor:
            _refuse_while_running(actor.record, "deleted")

            def remove(connection: Connection) -> None:
                note_uses(connection, _used_by(actor.record), actor.record.updated_at)
                connection.note_erasure()
                condition, parameters = self._ownership.guard(session_id)
                connection.execute(
                    f"DELETE FROM sessions WHERE id = ?{condition}",  # noqa: S608  # a constant
                    (session_id, *parameters),
                )

            await self._database.write(remove)
            self._engine.live.forget(session_id)
            body = {
                "id": new_id("sevt"),
                "type": "session.deleted",
                "processed_at": timestamps.now(),
            }
            self._log.close_readers(session_id, sse_frame("session.deleted", to_json(body)))
            await self._release(actor.record)
            for directory in self._child_sessions.directories(session_id):
                if not await asyncio.to_thread(remove_directory, directory):
                    _log.warning("directory not removed", session=session_id, path=str(directory))
            if self._on_deleted is not None:
                self._on_deleted()

    async def _release(self, record: SessionRecord) -> None:
        """Let the child forget the session. Best effort: a child that is down forgets by itself."""
        try:
            await self._child_sessions.forget(record)
        except ChildError as error:
            _log.warning("child kept a session", session=record.id, error=error.message)

    async def _effective_agent(self, request: SessionCreate) -> tuple[Agent, dict[str, Any], str]:
        reference = request.agent
        if not is_id(reference.id, "agent"):
            raise InvalidRequestError(f"agent: {reference.id!r} is not an agent id", field="agent")
        agent = await self._agents.get(reference.id, reference.version)
        if agent.archived_at is not None:
            raise InvalidRequestError(
                f"agent: {agent.id} is archived; create the session with another agent",
                field="agent",
            )
        snapshot, model_ref = agent.snapshot(), agent.model_ref
        if isinstance(reference, AgentWithOverrides):
            snapshot, model_ref = await self._overridden(snapshot, model_ref, reference)
        elif model_ref:
            await self._resolve_model(typed_name(model_ref))
        snapshot["tools"] = self._agents.offered(snapshot["tools"])
        return agent, snapshot, model_ref

    async def _overridden(
        self, snapshot: dict[str, Any], model_ref: str, wanted: AgentWithOverrides
    ) -> tuple[dict[str, Any], str]:
        sent = wanted.model_fields_set
        changed = dict(snapshot)
        if wanted.model is not None:
            ref = await self._resolve_model(wanted.model.id)
            changed["model"], model_ref = model_answer(wanted.model, ref), str(ref)
        else:
            await self._resolve_model(typed_name(model_ref))
        if "system" in sent:
            changed["system"] = wanted.system or None
        if "skills" in sent:
            changed["skills"] = []
        if {"tools", "mcp_servers"} & sent:
            changed.update(merge_tools(changed, wanted.tools, wanted.mcp_servers, sent))
        if changed["skills"] and not changed["tools"]:
            raise InvalidRequestError(
                "tools: cannot be cleared while the agent has skills", field="tools"
            )
        return changed, model_ref


def _narrow(query: pagination.Query, filters: Filters) -> None:
    query.select = "SELECT * FROM sessions"
    if filters.statuses:
        query.where(f"status IN ({','.join('?' * len(filters.statuses))})", *filters.statuses)
    if filters.agent_id is not None:
        query.where("agent_id = ?", filters.agent_id)
    if filters.agent_version is not None:
        query.where("agent_version = ?", filters.agent_version)
    if not filters.include_archived:
        query.where("archived_at IS NULL")


def _used_by(record: SessionRecord) -> list[str]:
    """Return the ids of what the session stands on, for `resource_uses`."""
    return [record.agent_id, record.environment_id, *record.body["vault_ids"]]


def typed_name(model_ref: str) -> str:
    """Return what a client types for a model ref."""
    ref = ModelRef.parse(model_ref)
    return ref.model_id if ref.provider == "litellm" else model_ref


def _packages_of(connection: Connection, environment_id: str) -> dict[str, list[str]]:
    """Return what is to be installed. Raises InvalidRequestError for an environment that cannot be used."""
    if not is_id(environment_id, "env"):
        raise InvalidRequestError(
            f"environment_id: {environment_id[:80]!r} is not an environment id",
            field="environment_id",
        )
    connection.lock_row("environments", environment_id, is_shared=True)
    environment = environments.select(connection, environment_id)
    if environment.archived_at is not None:
        raise InvalidRequestError(
            f"environment_id: {environment_id} is archived; use another environment",
            field="environment_id",
            error_code="environment_archived",
        )
    if environment.body["config"]["type"] == "self_hosted":
        raise InvalidRequestError(
            "environment_id: self_hosted environments are not offered here; use one of type cloud",
            field="environment_id",
        )
    config = environment.body["config"]
    packages = {
        name: names for name, names in config["packages"].items() if name != "type" and names
    }
    refused = [f"{name} packages" for name in packages if name not in INSTALLED]
    if config["networking"]["type"] != "unrestricted":
        refused.append("limited networking")
    if refused:  # of an earlier version, which stored them and did nothing
        raise InvalidRequestError(
            f"environment_id: {environment_id} has {' and '.join(refused)}, not offered by this sidecar; "
            "update the environment",
            field="environment_id",
        )
    return packages


def _refuse_while_running(record: SessionRecord, action: str) -> None:
    if record.status in {"running", "rescheduling"}:
        raise InvalidRequestError(
            f"session {record.id} is running and cannot be {action}; send user.interrupt and wait for "
            "session.status_idle"
        )
