"""`/v1/environments`."""

from __future__ import annotations

from sidecar.errors import TooManyStoredError
from sidecar.http import declare
from sidecar.http.operations import Answer, Anything, EnvironmentId
from sidecar.http.queries import Flag, LargeListQuery
from sidecar.managed.agents.environments import Environments
from sidecar.wire.environments import EnvironmentCreate, EnvironmentUpdate
from sidecar.wire.objects.agents import Deleted, EnvironmentObject
from sidecar.wire.objects.common import Page


class EnvironmentsQuery(LargeListQuery):
    """Which environments are listed."""

    include_archived: Flag = False


class EnvironmentsApi:
    """Environments."""

    def __init__(self, *, environments: Environments) -> None:
        self._environments = environments

    @declare.post("/v1/environments", response=EnvironmentObject, raises=(TooManyStoredError,))
    async def create(self, body: EnvironmentCreate) -> Answer:
        """Create an environment."""
        return (await self._environments.create(body)).answer()

    @declare.get("/v1/environments", response=Page[EnvironmentObject])
    async def list(self, query: EnvironmentsQuery) -> Answer:
        """List environments, newest first."""
        return await self._environments.list(
            query.paging(), include_archived=query.include_archived
        )

    @declare.get("/v1/environments/{id}", response=EnvironmentObject)
    async def retrieve(self, environment_id: EnvironmentId) -> Answer:
        """Retrieve an environment."""
        return (await self._environments.get(environment_id)).answer()

    @declare.post("/v1/environments/{id}", response=EnvironmentObject)
    async def update(self, environment_id: EnvironmentId, body: EnvironmentUpdate) -> Answer:
        """Update an environment: what is omitted is kept. The type of its config cannot change."""
        return (await self._environments.update(environment_id, body)).answer()

    @declare.delete("/v1/environments/{id}", response=Deleted)
    async def delete(self, environment_id: EnvironmentId) -> Answer:
        """Delete an environment that no session uses."""
        await self._environments.delete(environment_id)
        return {"id": environment_id, "type": "environment_deleted"}

    @declare.post("/v1/environments/{id}/archive", response=EnvironmentObject, body=Anything)
    async def archive(self, environment_id: EnvironmentId) -> Answer:
        """Archive an environment: no new sessions are made on it."""
        return (await self._environments.archive(environment_id)).answer()
