"""`/v1/agents`."""

from __future__ import annotations

from aiohttp import web

from sidecar.http.bodies import read_model, read_object
from sidecar.http.queries import (
    created_at_filters,
    page_query,
    path_id,
    query_bool,
    query_version,
)
from sidecar.http.responses import json_response
from sidecar.managed.agents.agents import Agents
from sidecar.wire.managed import AgentCreate, AgentUpdate


class AgentsApi:
    """Agents and their versions."""

    def __init__(self, *, agents: Agents) -> None:
        self._agents = agents

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/agents", self.create),
            web.get("/v1/agents", self.list),
            web.get("/v1/agents/{id}", self.retrieve),
            web.post("/v1/agents/{id}", self.update),
            web.post("/v1/agents/{id}/archive", self.archive),
            web.get("/v1/agents/{id}/versions", self.versions),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/agents`."""
        body = await read_model(request, AgentCreate)
        return json_response((await self._agents.create(body)).answer())

    async def retrieve(self, request: web.Request) -> web.Response:
        """`GET /v1/agents/{id}?version=`."""
        agent_id = path_id(request, "agent", "agent")
        agent = await self._agents.get(agent_id, query_version(request, "version"))
        return json_response(agent.answer())

    async def update(self, request: web.Request) -> web.Response:
        """`POST /v1/agents/{id}`."""
        agent_id = path_id(request, "agent", "agent")
        body = await read_model(request, AgentUpdate)
        return json_response((await self._agents.update(agent_id, body)).answer())

    async def archive(self, request: web.Request) -> web.Response:
        """`POST /v1/agents/{id}/archive`."""
        agent_id = path_id(request, "agent", "agent")
        await read_object(request, allow_empty=True)
        return json_response((await self._agents.archive(agent_id)).answer())

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/agents`, newest first."""
        query = page_query(request, highest=100)
        created_at_filters(request, query)
        include_archived = query_bool(request, "include_archived")
        return json_response(await self._agents.list(query, include_archived=include_archived))

    async def versions(self, request: web.Request) -> web.Response:
        """`GET /v1/agents/{id}/versions`, newest first."""
        agent_id = path_id(request, "agent", "agent")
        return json_response(
            await self._agents.versions(agent_id, page_query(request, highest=100))
        )
