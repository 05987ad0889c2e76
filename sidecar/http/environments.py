"""`/v1/environments`."""

from __future__ import annotations

from aiohttp import web

from sidecar.http.bodies import read_model, read_object
from sidecar.http.queries import page_query, path_id, query_bool
from sidecar.http.responses import json_response
from sidecar.managed.agents.environments import Environments
from sidecar.wire.managed import EnvironmentCreate, EnvironmentUpdate


class EnvironmentsApi:
    """Environments."""

    def __init__(self, *, environments: Environments) -> None:
        self._environments = environments

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/environments", self.create),
            web.get("/v1/environments", self.list),
            web.get("/v1/environments/{id}", self.retrieve),
            web.post("/v1/environments/{id}", self.update),
            web.delete("/v1/environments/{id}", self.delete),
            web.post("/v1/environments/{id}/archive", self.archive),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/environments`."""
        body = await read_model(request, EnvironmentCreate)
        return json_response((await self._environments.create(body)).answer())

    async def retrieve(self, request: web.Request) -> web.Response:
        """`GET /v1/environments/{id}`."""
        environment_id = path_id(request, "env", "environment")
        return json_response((await self._environments.get(environment_id)).answer())

    async def update(self, request: web.Request) -> web.Response:
        """`POST /v1/environments/{id}`."""
        environment_id = path_id(request, "env", "environment")
        body = await read_model(request, EnvironmentUpdate)
        return json_response((await self._environments.update(environment_id, body)).answer())

    async def archive(self, request: web.Request) -> web.Response:
        """`POST /v1/environments/{id}/archive`."""
        environment_id = path_id(request, "env", "environment")
        await read_object(request, allow_empty=True)
        return json_response((await self._environments.archive(environment_id)).answer())

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/environments/{id}`."""
        environment_id = path_id(request, "env", "environment")
        await self._environments.delete(environment_id)
        return json_response({"id": environment_id, "type": "environment_deleted"})

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/environments`, newest first."""
        query = page_query(request, highest=1000)
        include_archived = query_bool(request, "include_archived")
        return json_response(
            await self._environments.list(query, include_archived=include_archived)
        )
