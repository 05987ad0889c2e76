"""`/v1/sessions/{id}/resources`."""

from __future__ import annotations

from aiohttp import web

from sidecar.errors import InvalidRequestError
from sidecar.http.bodies import read_model, read_object
from sidecar.http.queries import path_id, query_int
from sidecar.http.responses import json_response
from sidecar.managed.sessions.resources import Resources
from sidecar.wire.sessions import ResourceUpdate

MAX_PAGE = 1000


class ResourcesApi:
    """Resources of a session."""

    def __init__(self, *, resources: Resources) -> None:
        self._resources = resources

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        base = "/v1/sessions/{id}/resources"
        return [
            web.get(base, self.list),
            web.post(base, self.add),
            web.get(base + "/{resource}", self.retrieve),
            web.post(base + "/{resource}", self.update),
            web.delete(base + "/{resource}", self.delete),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/sessions/{id}/resources`: all, unless `limit` is given. The cursor is an id."""
        found = await self._resources.list(_session_id(request))
        limit = query_int(request, "limit", default=MAX_PAGE, low=1, high=MAX_PAGE)
        start = 0
        if after := request.query.get("page"):
            ids = [item["id"] for item in found]
            if after not in ids:
                raise InvalidRequestError(
                    "page: not a cursor of this list; use next_page of an earlier answer",
                    field="page",
                )
            start = ids.index(after) + 1
        data = found[start : start + limit]
        has_more = start + limit < len(found)
        return json_response({"data": data, "next_page": data[-1]["id"] if has_more else None})

    async def add(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions/{id}/resources`: the API knows only files here, and there are none."""
        await self._resources.list(_session_id(request))
        kind = str((await read_object(request)).get("type"))[:80]
        if kind == "github_repository":
            raise InvalidRequestError(
                "type: a github_repository can only be given at session create", field="type"
            )
        raise InvalidRequestError(
            f"type: {kind!r} resources are not supported by this sidecar", field="type"
        )

    async def retrieve(self, request: web.Request) -> web.Response:
        """`GET /v1/sessions/{id}/resources/{resource}`."""
        ids = _session_id(request), _resource_id(request)
        return json_response(await self._resources.get(*ids))

    async def update(self, request: web.Request) -> web.Response:
        """`POST /v1/sessions/{id}/resources/{resource}`."""
        ids = _session_id(request), _resource_id(request)
        body = await read_model(request, ResourceUpdate)
        return json_response(await self._resources.set_token(*ids, body.authorization_token))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/sessions/{id}/resources/{resource}`."""
        session_id, resource_id = _session_id(request), _resource_id(request)
        await self._resources.delete(session_id, resource_id)
        return json_response({"id": resource_id, "type": "session_resource_deleted"})


def _session_id(request: web.Request) -> str:
    return path_id(request, "sesn", "session")


def _resource_id(request: web.Request) -> str:
    return path_id(request, "sesrsc", "resource", name="resource")
