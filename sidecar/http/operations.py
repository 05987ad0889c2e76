"""One declaration per route, at its handler. The router and the OpenAPI document are both made from it.

    class AgentsApi:
        @declare.get("/v1/agents/{id}", response=AgentObject)
        async def retrieve(self, agent_id: AgentId, query: VersionQuery) -> Answer:
            '''Retrieve an agent, its newest version unless `version` names another.'''

The parameters of a handler say what is read of the request before it is called:

- a name whose type has a `PathId` is that id in the path; with `| None` the path may do without;
- `query` is a model of the query string, see `sidecar.http.queries`;
- `body` is a model of the body;
- `request` is the request itself.

What it returns becomes JSON, unless it is a response already. The docstring is the route's description.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from sidecar.errors import NotFoundError, SidecarError
from sidecar.http.bodies import read_model, read_optional_model
from sidecar.http.queries import QueryModel, read_query, shorten
from sidecar.http.responses import json_response, page_response
from sidecar.ids import Prefix, is_id
from sidecar.managed.common.pagination import Envelope

Answer = dict[str, Any]
"""What a handler returns: the object that its declaration names as `response`."""

ATTRIBUTE = "__operations__"
"""Of a handler: its `Operation`s, one per route."""


@dataclass(frozen=True, slots=True)
class PathId:
    """An id in a path: a malformed one is simply not found and never reaches the domain."""

    prefix: Prefix
    kind: str
    """What it is an id of, for people."""
    name: str = "id"
    """Its name in the route's path."""

    @property
    def pattern(self) -> str:
        """The regular expression of such ids."""
        return f"^{self.prefix}_[0-9A-HJKMNP-TV-Z]{{26}}$"

    def read(self, request: web.Request) -> str:
        """Return it. Raises NotFoundError."""
        value = request.match_info[self.name]
        if not is_id(value, self.prefix):
            raise NotFoundError(f"{self.kind} {shorten(value)!r} does not exist")
        return value


AgentId = Annotated[str, PathId("agent", "agent")]
EnvironmentId = Annotated[str, PathId("env", "environment")]
SessionId = Annotated[str, PathId("sesn", "session")]
ThreadId = Annotated[str, PathId("sthr", "thread", "thread_id")]
ResourceId = Annotated[str, PathId("sesrsc", "resource", "resource")]
VaultId = Annotated[str, PathId("vlt", "vault")]
CredentialId = Annotated[str, PathId("vcrd", "credential", "credential")]


class Anything(BaseModel):
    """An object whose fields are ignored, or nothing."""


@dataclass(frozen=True, slots=True)
class HeaderParameter:
    """A header that changes the answer."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Content:
    """A body that is not simply the JSON of `response`: of another type, or under another status."""

    description: str
    schema: Any = None
    """The type that it is made of; None where there is no body, or text."""
    media_type: str = "application/json"
    headers: Sequence[str] = ()
    """Names of response headers, see `sidecar.http.openapi`."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is declared of a route, and (once `operations_of` has read it) what its handler reads."""

    method: str
    path: str
    """As aiohttp reads it."""
    attribute: str
    """The method's name."""
    name: str
    """The same, unless several routes have one handler."""
    description: str
    response: Any
    status: int
    others: Mapping[int, Content]
    raises: Sequence[type[SidecarError]]
    headers: Sequence[HeaderParameter]
    has_head: bool
    has_content: bool
    """Whether the body may carry messages and files, and so be large."""
    has_secrets: bool
    is_body_optional: bool
    body: type[BaseModel] | None = None
    takes_body: bool = False
    query: type[QueryModel] | None = None
    takes_request: bool = False
    ids: Mapping[str, PathId] = field(default_factory=dict)
    """Argument of the handler -> the id."""
    tag: str = ""

    @property
    def id(self) -> str:
        """Unique among the operations of a listener, for generated clients."""
        return f"{self.tag}_{self.name}".lower().replace(" ", "_")

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", self.path)


def routes_of(api: object) -> list[web.RouteDef]:
    """Return the routes that the methods of `api` declare."""
    return [
        web.RouteDef(
            operation.method,
            operation.path,
            _handler(operation, getattr(api, operation.attribute)),
            {"allow_head": operation.has_head} if operation.method == hdrs.METH_GET else {},
        )
        for operation in operations_of(type(api))
    ]


def operations_of(api: type) -> list[Operation]:
    """Return the operations that a class declares, in the order of its methods."""
    return [
        replace(operation, tag=tag_of(api), **_read_by(function, operation))
        for function in vars(api).values()
        for operation in getattr(function, ATTRIBUTE, ())
    ]


def tag_of(api: type) -> str:
    """Return the name of the group that the operations of a class belong to."""
    name = api.__name__.removesuffix("Api")
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name)


def _read_by(function: Any, operation: Operation) -> dict[str, Any]:
    """Return what the parameters of a handler say."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    ids = {
        argument: path_id
        for argument, hint in hints.items()
        if (path_id := _path_id(hint)) is not None
    }
    return {
        "ids": ids,
        "query": hints.get("query"),
        "body": hints.get("body", operation.body),
        "takes_body": "body" in hints,
        "takes_request": "request" in hints,
    }


def _path_id(hint: Any) -> PathId | None:
    if get_origin(hint) is Annotated:
        return next((item for item in get_args(hint)[1:] if isinstance(item, PathId)), None)
    return next((found for item in get_args(hint) if (found := _path_id(item))), None)


def _handler(operation: Operation, method: Callable[..., Awaitable[Any]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        arguments: dict[str, Any] = {
            argument: path_id.read(request) if path_id.name in request.match_info else None
            for argument, path_id in operation.ids.items()
        }
        if operation.query is not None:
            arguments["query"] = read_query(request, operation.query)
        if operation.body is not None:
            body = await _read_body(request, operation, operation.body)
            if operation.takes_body:
                arguments["body"] = body
        if operation.takes_request:
            arguments["request"] = request
        answer = await method(**arguments)
        if isinstance(answer, web.StreamResponse):
            return answer
        if isinstance(answer, Envelope):
            return await page_response(answer)
        return json_response(answer, status=operation.status)

    return handle


async def _read_body(
    request: web.Request, operation: Operation, model: type[BaseModel]
) -> BaseModel:
    if operation.is_body_optional:
        return await read_optional_model(request, model)
    return await read_model(
        request, model, has_content=operation.has_content, has_secrets=operation.has_secrets
    )
