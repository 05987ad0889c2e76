"""Agents: a name, a model, a system prompt and tools, versioned. A row each; nothing in the child."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.errors import ConflictError, InvalidRequestError, NotFoundError
from sidecar.ids import new_id
from sidecar.managed.agents import toolsets
from sidecar.managed.common import pagination, timestamps
from sidecar.managed.common.metadata import merge_metadata
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.naming import ModelRef
from sidecar.store.interface import Connection, Row, Store
from sidecar.wire.agents import AgentCreate, AgentUpdate, ModelConfig
from sidecar.wire.tools import McpServer, Tool

ResolveModel = Callable[[str], Awaitable[ModelRef]]
"""Resolves what a client typed and registers it with the child. Raises InvalidRequestError."""

_LATEST = (
    "SELECT a.id, a.created_at, a.archived_at, v.version, v.updated_at, v.model_ref, v.body "
    "FROM agents a JOIN agent_versions v ON v.agent_id = a.id"
)


@dataclass(frozen=True, slots=True)
class Agent:
    """One version of an agent. `body` holds the fields a client can set, as they are answered."""

    id: str
    version: int
    created_at: str
    updated_at: str
    archived_at: str | None
    model_ref: str
    body: dict[str, Any]

    def snapshot(self) -> dict[str, Any]:
        """Return the part that a session keeps (the agent without metadata and times)."""
        shown = {"type": "agent", "id": self.id, "version": self.version, **self.body}
        del shown["metadata"]
        return shown


class Agents:
    """Create, read, update and list agents. `has_search` says that the gateway can be searched with."""

    def __init__(
        self,
        *,
        database: Store,
        resolve_model: ResolveModel,
        has_search: bool = False,
        limits: StoredLimits | None = None,
    ) -> None:
        self._database = database
        self._limits = limits or StoredLimits()
        self._resolve_model = resolve_model
        self._has_search = has_search

    def offered(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an agent's tools as they can be offered here: what cannot be is not enabled."""
        return toolsets.offered(tools, has_search=self._has_search)

    def to_api(self, agent: Agent) -> dict[str, Any]:
        """Return the API's agent object; every field that strict clients need is present."""
        snapshot = agent.snapshot()
        return {
            **snapshot,
            "tools": self.offered(snapshot["tools"]),
            "mcp_servers": toolsets.shown_servers(snapshot["mcp_servers"]),
            "metadata": agent.body["metadata"],
            "created_at": agent.created_at,
            "updated_at": agent.updated_at,
            "archived_at": agent.archived_at,
        }

    async def create(self, request: AgentCreate) -> Agent:
        """Store a new agent. Raises InvalidRequestError, also for a model that is not offered."""
        body, model_ref = await self._body(request)
        now = timestamps.now()
        agent = Agent(new_id("agent"), 1, now, now, None, model_ref, body)

        def insert(connection: Connection) -> None:
            self._limits.check(connection, "agents")
            connection.execute(
                "INSERT INTO agents (id, version, created_at) VALUES (?, 1, ?)", (agent.id, now)
            )
            _insert_version(connection, agent)

        await self._database.write(insert)
        return agent

    async def get(self, agent_id: str, version: int | None = None) -> Agent:
        """Return the latest or the given version. Raises NotFoundError."""

        def select(connection: Connection) -> Agent:
            return _select(connection, agent_id, version)

        return await self._database.read(select)

    async def update(self, agent_id: str, request: AgentUpdate) -> Agent:
        """Apply an update; without a change the same version is returned.

        Raises ConflictError when `version` is given and not the current one, InvalidRequestError for
        an archived agent.
        """
        # Before the gateway is asked for a model that cannot be used anyway.
        _check_update(await self.get(agent_id), request)
        ref = await self._resolve_model(request.model.id) if request.model is not None else None

        def write(connection: Connection) -> Agent:
            # Merged here, so that of updates at the same time none undoes another's fields.
            connection.lock_row("agents", agent_id)
            latest = _select(connection, agent_id, None)
            _check_update(latest, request)
            changed, model_ref = _merged(latest, request, ref)
            if changed == latest.body and model_ref == latest.model_ref:
                return latest
            updated = Agent(
                latest.id,
                latest.version + 1,
                latest.created_at,
                timestamps.now(),
                latest.archived_at,
                model_ref,
                changed,
            )
            self._limits.check(connection, "agent_versions", owner_id=agent_id)
            connection.execute(
                "UPDATE agents SET version = ? WHERE id = ?", (updated.version, agent_id)
            )
            _insert_version(connection, updated)
            return updated

        return await self._database.write(write)

    async def archive(self, agent_id: str) -> Agent:
        """Make the agent read-only for good; running sessions go on. Idempotent."""

        def write(connection: Connection) -> Agent:
            connection.execute(
                "UPDATE agents SET archived_at = coalesce(archived_at, ?) WHERE id = ?",
                (timestamps.now(), agent_id),
            )
            return _select(connection, agent_id, None)

        return await self._database.write(write)

    async def list(self, query: pagination.Query, *, include_archived: bool) -> pagination.Envelope:
        """Return a page of latest versions."""
        query.select = f"SELECT * FROM ({_LATEST} AND v.version = a.version) AS latest"  # noqa: S608  # a constant
        if not include_archived:
            query.where("archived_at IS NULL")
        return await self._database.read(
            lambda connection: pagination.fetch_page(connection, query).envelope(
                lambda row: self.to_api(_from_row(row))
            )
        )

    async def versions(self, agent_id: str, query: pagination.Query) -> pagination.Envelope:
        """Return a page of all versions, newest first. Raises NotFoundError."""

        def select(connection: Connection) -> pagination.Envelope:
            _select(connection, agent_id, None)
            query.select = (
                "SELECT id, agent_created_at, archived_at, version, updated_at, model_ref, body, "
                "created_at FROM (SELECT a.id, a.created_at AS agent_created_at, a.archived_at, "
                "v.version, v.updated_at, v.model_ref, v.body, "
                # The cursor's text, twelve digits: zeros in front, and as many characters less.
                "substr('000000000000' || CAST(v.version AS TEXT), "
                "length(CAST(v.version AS TEXT)) + 1) AS created_at "
                "FROM agents a JOIN agent_versions v ON v.agent_id = a.id) AS versions"
            )
            query.where("id = ?", agent_id)
            page = pagination.fetch_page(connection, query)
            return page.envelope(
                lambda row: self.to_api(_from_row(row, created="agent_created_at"))
            )

        return await self._database.read(select)

    async def model_refs(self) -> set[str]:
        """Return the model refs in use by agents and sessions, for the child's config at start."""

        def select(connection: Connection) -> set[str]:
            rows = connection.execute(
                "SELECT v.model_ref FROM agents a JOIN agent_versions v "
                "ON v.agent_id = a.id AND v.version = a.version WHERE a.archived_at IS NULL "
                "UNION SELECT model_ref FROM sessions WHERE archived_at IS NULL"
            )
            return {row[0] for row in rows}

        return await self._database.read(select)

    async def _body(self, request: AgentCreate) -> tuple[dict[str, Any], str]:
        ref = await self._resolve_model(request.model.id)
        return {
            "name": request.name,
            "model": model_answer(request.model, ref),
            "system": request.system or None,
            "description": request.description or None,
            **merge_tools({}, request.tools, request.mcp_servers, sent={"tools", "mcp_servers"}),
            "skills": [],
            "multiagent": None,
            "execution_identity": {"type": "service_account"},
            "metadata": dict(request.metadata or {}),
        }, str(ref)


def _merged(
    current: Agent, request: AgentUpdate, ref: ModelRef | None
) -> tuple[dict[str, Any], str]:
    """Return the new (body, model ref); `ref` is what the request's model resolved to, if it has one."""
    sent = request.model_fields_set
    body = dict(current.body)
    model_ref = current.model_ref
    if request.name is not None:
        body["name"] = request.name
    if request.model is not None and ref is not None:
        kept = body["model"].get("effort") if str(ref) == model_ref else None
        body["model"] = model_answer(request.model, ref)
        if kept and "effort" not in request.model.model_fields_set:
            body["model"]["effort"] = kept
        model_ref = str(ref)
    for field in ("system", "description"):
        if field in sent:
            body[field] = getattr(request, field) or None
    if {"tools", "mcp_servers"} & sent:
        body.update(merge_tools(body, request.tools, request.mcp_servers, sent))
    if "skills" in sent:
        body["skills"] = []
    if request.metadata is not None:
        body["metadata"] = merge_metadata(body["metadata"], request.metadata)
    return body, model_ref


def merge_tools(
    current: Mapping[str, Any],
    tools: Sequence[Tool] | None,
    servers: Sequence[McpServer] | None,
    sent: set[str],
) -> dict[str, Any]:
    """Replace tools and servers as sent and check that the result fits together."""
    merged = {key: current.get(key, []) for key in ("tools", "mcp_servers")}
    if "tools" in sent:
        merged["tools"] = toolsets.expand(tools)
    if "mcp_servers" in sent:
        merged["mcp_servers"] = [server.model_dump() for server in servers or ()]
    toolsets.check_fit(merged["tools"], merged["mcp_servers"])
    return merged


def model_answer(model: ModelConfig, ref: ModelRef) -> dict[str, Any]:
    """Return the model as the API answers it: an object with the id the gateway lists."""
    shown_id = ref.model_id if ref.provider == "litellm" else str(ref)
    return {**model.model_dump(exclude_none=True), "id": shown_id}


def _check_update(current: Agent, request: AgentUpdate) -> None:
    if request.version is not None and request.version != current.version:
        raise ConflictError(
            f"version: the agent is at version {current.version}, not {request.version}; "
            "read it again and update that version",
            field="version",
        )
    if current.archived_at is not None:
        raise InvalidRequestError(f"agent {current.id} is archived and can no longer be changed")


def _insert_version(connection: Connection, agent: Agent) -> None:
    connection.execute(
        "INSERT INTO agent_versions (agent_id, version, updated_at, model_ref, body) VALUES (?,?,?,?,?)",
        (agent.id, agent.version, agent.updated_at, agent.model_ref, json.dumps(agent.body)),
    )


def _select(connection: Connection, agent_id: str, version: int | None) -> Agent:
    row = connection.execute(
        f"{_LATEST} AND v.version = coalesce(?, a.version) WHERE a.id = ?", (version, agent_id)
    ).fetchone()
    if row is None:
        which = f" version {version}" if version is not None else ""
        raise NotFoundError(f"agent {agent_id}{which} does not exist")
    return _from_row(row)


def _from_row(row: Row, created: str = "created_at") -> Agent:
    return Agent(
        row["id"],
        row["version"],
        row[created],
        row["updated_at"],
        row["archived_at"],
        row["model_ref"],
        json.loads(row["body"]),
    )
