"""`/v1/sessions/{id}/resources`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sidecar.errors import InvalidRequestError
from sidecar.http import declare
from sidecar.http.operations import Answer, ResourceId, SessionId
from sidecar.http.queries import LargeLimit, QueryModel
from sidecar.managed.sessions.resources import Resources
from sidecar.wire.objects.agents import Deleted
from sidecar.wire.objects.common import Page
from sidecar.wire.objects.sessions import ResourceObject
from sidecar.wire.problems import shown
from sidecar.wire.sessions import ResourceUpdate

_RESOURCES = "/v1/sessions/{id}/resources"
_RESOURCE = _RESOURCES + "/{resource}"


class ResourcesQuery(QueryModel):
    """The page of a list."""

    limit: LargeLimit = Field(1000, description="the most items of a page")
    page: str | None = Field(None, description="`next_page` of an earlier answer")


class ResourceCreate(BaseModel):
    """A resource that a live session is to have. None can be added, see the operation."""

    model_config = ConfigDict(extra="allow")

    type: Any = None


class ResourcesApi:
    """Resources of a session."""

    def __init__(self, *, resources: Resources) -> None:
        self._resources = resources

    @declare.get(_RESOURCES, response=Page[ResourceObject])
    async def list(self, session_id: SessionId, query: ResourcesQuery) -> Answer:
        """List the resources of a session: all, unless `limit` is given."""
        found = await self._resources.list(session_id)
        start = 0
        if query.page:
            ids = [item["id"] for item in found]
            if query.page not in ids:
                raise InvalidRequestError(
                    "page: not a cursor of this list; use next_page of an earlier answer",
                    field="page",
                )
            start = ids.index(query.page) + 1
        data = found[start : start + query.limit]
        has_more = start + query.limit < len(found)
        return {"data": data, "next_page": data[-1]["id"] if has_more else None}

    @declare.post(_RESOURCES, response=ResourceObject)
    async def add(self, session_id: SessionId, body: ResourceCreate) -> Answer:
        """Add a resource: always refused. The API knows only files here, and there are none."""
        await self._resources.list(session_id)
        if body.type == "github_repository":
            raise InvalidRequestError(
                "type: a github_repository can only be given at session create", field="type"
            )
        raise InvalidRequestError(
            f"type: {shown(body.type)} resources are not offered by this sidecar", field="type"
        )

    @declare.get(_RESOURCE, response=ResourceObject)
    async def retrieve(self, session_id: SessionId, resource_id: ResourceId) -> Answer:
        """Retrieve a resource."""
        return await self._resources.get(session_id, resource_id)

    @declare.post(_RESOURCE, response=ResourceObject)
    async def update(
        self, session_id: SessionId, resource_id: ResourceId, body: ResourceUpdate
    ) -> Answer:
        """Give a repository another token."""
        return await self._resources.set_token(session_id, resource_id, body.authorization_token)

    @declare.delete(_RESOURCE, response=Deleted)
    async def delete(self, session_id: SessionId, resource_id: ResourceId) -> Answer:
        """Remove a resource and its token; the files stay."""
        await self._resources.delete(session_id, resource_id)
        return {"id": resource_id, "type": "session_resource_deleted"}
