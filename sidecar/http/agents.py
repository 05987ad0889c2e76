"""`/v1/agents`."""

from __future__ import annotations

from pydantic import Field

from sidecar.errors import ConflictError, TooManyStoredError
from sidecar.http import declare
from sidecar.http.operations import AgentId, Answer, Anything
from sidecar.http.queries import AgentVersion, CreatedAtBounds, Flag, ListQuery, QueryModel
from sidecar.managed.agents.agents import Agents
from sidecar.wire.agents import AgentCreate, AgentUpdate
from sidecar.wire.objects.agents import AgentObject
from sidecar.wire.objects.common import Page


class VersionQuery(QueryModel):
    """Which version of an agent."""

    version: AgentVersion | None = Field(None, description="its newest one when left out")


class AgentsQuery(ListQuery, CreatedAtBounds):
    """Which agents are listed."""

    include_archived: Flag = False


class AgentsApi:
    """Agents and their versions."""

    def __init__(self, *, agents: Agents) -> None:
        self._agents = agents

    @declare.post("/v1/agents", response=AgentObject, raises=(TooManyStoredError,))
    async def create(self, body: AgentCreate) -> Answer:
        """Create an agent. Its model is an id that the gateway lists, or an alias."""
        return self._agents.to_api(await self._agents.create(body))

    @declare.get("/v1/agents", response=Page[AgentObject])
    async def list(self, query: AgentsQuery) -> Answer:
        """List agents, newest first."""
        paging = query.paging()
        query.narrow(paging)
        return await self._agents.list(paging, include_archived=query.include_archived)

    @declare.get("/v1/agents/{id}", response=AgentObject)
    async def retrieve(self, agent_id: AgentId, query: VersionQuery) -> Answer:
        """Retrieve an agent."""
        return self._agents.to_api(await self._agents.get(agent_id, query.version))

    @declare.post(
        "/v1/agents/{id}", response=AgentObject, raises=(ConflictError, TooManyStoredError)
    )
    async def update(self, agent_id: AgentId, body: AgentUpdate) -> Answer:
        """Update an agent, which makes a new version: what is omitted is kept, null or empty clears."""
        return self._agents.to_api(await self._agents.update(agent_id, body))

    @declare.post("/v1/agents/{id}/archive", response=AgentObject, body=Anything)
    async def archive(self, agent_id: AgentId) -> Answer:
        """Archive an agent: no new sessions are made with it."""
        return self._agents.to_api(await self._agents.archive(agent_id))

    @declare.get("/v1/agents/{id}/versions", response=Page[AgentObject])
    async def versions(self, agent_id: AgentId, query: ListQuery) -> Answer:
        """List the versions of an agent, newest first."""
        return await self._agents.versions(agent_id, query.paging())
