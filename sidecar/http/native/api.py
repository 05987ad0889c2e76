"""opencode's own API: forwarded byte for byte but for model names, or answered here where it must be.

Forwarded is what the child's `/doc` declares, less what `rules` refuses. Unknown paths are a JSON 404: the
child would answer them with an HTML page and status 200.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import aiohttp
from aiohttp import hdrs, web

from sidecar.aiokit import aside
from sidecar.errors import ChildError, InvalidRequestError, PermissionDeniedError
from sidecar.http import declare
from sidecar.http.bodies import read_body
from sidecar.http.middleware import REQUEST_ID
from sidecar.http.native import rules
from sidecar.http.native.attachments import check_files
from sidecar.http.native.guard import ManagedSessions
from sidecar.http.native.models import NamedModels
from sidecar.http.native.providers import ProviderAnswers
from sidecar.http.native.streams import EventStreams
from sidecar.http.operations import Answer, Anything, Content, operations_of, routes_of
from sidecar.http.responses import json_response
from sidecar.http.routes import check_method
from sidecar.opencode.boot import Boot
from sidecar.opencode.client import ChildClient
from sidecar.wire.json_text import read_strictly
from sidecar.wire.json_writing import write_json
from sidecar.wire.objects.common import AnyObject

REQUEST_HEADERS = (hdrs.ACCEPT, hdrs.CONTENT_TYPE, "last-event-id", "traceparent")
"""Sent on to the child. The caller's key is not: the child has a password of its own."""
RESPONSE_HEADERS = (hdrs.CONTENT_TYPE, hdrs.CACHE_CONTROL, hdrs.ETAG, "x-accel-buffering")
DIRECTORY_HEADER = "x-opencode-directory"
_SMALL_BYTES = 64 * 1024
_OWN_DIRECTORY = "native"
"""Below the workspaces: where requests work that name no directory. No session id looks like it."""

_STREAM = Content(
    "Frames `data: <an event as one line of JSON>`; it survives a restart of opencode.",
    AnyObject,
    "text/event-stream",
)

UseDirectory = Callable[[Path, str | None], AbstractAsyncContextManager[Boot]]


class NativeApi:
    """opencode's own API: what is answered by the sidecar itself. The rest is forwarded, see `GET /doc`.

    Put its routes last: they match everything.
    """

    def __init__(
        self,
        *,
        wait_ready: Callable[[], Awaitable[ChildClient]],
        wait_serving: Callable[[], Awaitable[ChildClient]],
        boot: Callable[[], int],
        use_directory: UseDirectory,
        models: NamedModels,
        providers: ProviderAnswers,
        streams: EventStreams,
        workspaces_dir: Path,
    ) -> None:
        self._wait_ready = wait_ready
        self._wait_serving = wait_serving
        self._boot = boot
        self._use_directory = use_directory
        self._models = models
        self._providers = providers
        self._streams = streams
        self._root = workspaces_dir.resolve()
        self._managed = ManagedSessions(workspaces_dir)
        self._declared: tuple[int, dict[str, Any], rules.Routes] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the sidecar's own answers, then the catch-all."""
        return [*routes_of(self), web.route("*", "/{path:.*}", self.forward)]

    @declare.get("/config", response=AnyObject)
    async def config(self) -> Answer:
        """opencode's configuration, made from the catalogue, without keys and paths."""
        return self._providers.configuration()

    @declare.get(
        "/config/providers", response=AnyObject, raises=(ChildError, PermissionDeniedError)
    )
    async def usable_providers(self, request: web.Request) -> Answer:
        """Every model that the gateway lists, as opencode's providers, without keys."""
        return self._providers.usable(await self._known(request))

    @declare.get("/provider", response=AnyObject, raises=(ChildError, PermissionDeniedError))
    async def all_providers(self, request: web.Request) -> Answer:
        """The same in another shape."""
        return self._providers.all(await self._known(request))

    @declare.get("/provider/auth", response=AnyObject)
    async def provider_auth(self) -> Answer:
        """Ways to sign in at providers. There are none: the gateway has the keys."""
        return {}

    @declare.get("/doc", response=AnyObject, raises=(ChildError,))
    async def document(self) -> Answer:
        """opencode's own OpenAPI document, reduced to what is served here."""
        document, _ = await self._declarations(await self._wait_serving())
        return rules.served_document(document, _OWN)

    @declare.post("/log", response=Literal[True], body=Anything)
    async def log(self) -> web.Response:
        """What a client's own log says. Read and dropped; it is not ours to keep."""
        return json_response(True)

    @declare.get("/event", others={200: _STREAM}, raises=(PermissionDeniedError,), has_head=False)
    @declare.get("/global/event", others={200: _STREAM}, has_head=False, name="global_events")
    async def events(self, request: web.Request) -> web.StreamResponse:
        """opencode's events of one directory, or (`/global/event`) of all."""
        is_global = request.path == "/global/event"
        directory = None if is_global else self._directories(request)[0]
        return await self._streams.answer(request, directory, request[REQUEST_ID])

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Forward one request.

        Raises NotFoundError, MethodNotAllowedError, PermissionDeniedError, ConflictError, ChildError.
        """
        method, path = request.method, request.rel_url.raw_path
        if path in _OWN_PATHS or not rules.may_be_route(path):
            await check_method(request)
            raise rules.no_route(method, path)
        rules.check_allowed(method, path)
        begins_turn = rules.is_prompt(method, path)
        # A hold or a drain waits for turns that only their clients can end: those must get through.
        client = await (self._wait_ready() if begins_turn else self._wait_serving())
        _, routes = await self._declarations(client)
        routes.check(method, path)
        rules.check_no_workspace(request.query.get("workspace"), "workspace")
        directories = self._directories(request)
        body = await read_body(request, has_content=begins_turn) if request.can_read_body else None
        prepared = self._prepared(client, method, path, directories, body)
        async with prepared as (client, body):
            upstream = await client.forward(
                # opencode answers HEAD with 500.
                hdrs.METH_GET if method == hdrs.METH_HEAD else method,
                path,
                query=request.rel_url.raw_query_string,
                headers=_picked(request.headers, REQUEST_HEADERS)
                | {DIRECTORY_HEADER: quote(str(directories[0]))},
                body=body,
            )
            async with upstream:
                return await _pass_on(request, upstream)

    async def _declarations(self, client: ChildClient) -> tuple[dict[str, Any], rules.Routes]:
        if self._declared is None or self._declared[0] != self._boot():
            document = await client.doc()
            self._declared = self._boot(), document, rules.Routes(document)
        return self._declared[1], self._declared[2]

    async def _known(self, request: web.Request) -> dict[str, Any]:
        """Return what the child says of the models that the request's directory has loaded."""
        directory = self._directories(request)[0]
        await _make(directory)
        async with self._use_directory(directory, None) as boot:
            return await boot.client.providers(directory)

    def _directories(self, request: web.Request) -> list[Path]:
        """Return the directories that the request names, the default one when it names none.

        A directory from a client is arbitrary file access, unless it is below the workspaces.
        """
        wanted = [*request.query.getall("directory", [])]
        wanted += [unquote(value) for value in request.headers.getall(DIRECTORY_HEADER, [])]
        try:
            for text in wanted:
                text.encode()
            directories = [Path(text).resolve() for text in wanted] or [self._root / _OWN_DIRECTORY]
        except (ValueError, OSError, RuntimeError) as error:  # no text; a NUL; a loop of links
            raise InvalidRequestError("directory: not a valid path", field="directory") from error
        if not all(directory.is_relative_to(self._root) for directory in directories):
            raise PermissionDeniedError(
                "directory: only directories below the sidecar's WORKDIR are served"
            )
        return directories

    @asynccontextmanager
    async def _prepared(
        self,
        client: ChildClient,
        method: str,
        path: str,
        directories: list[Path],
        body: bytes | None,
    ) -> AsyncIterator[tuple[ChildClient, bytes | None]]:
        """Hold the directory loaded; where a model is named or will be used, with that model, qualified."""
        directory, model_ids = directories[0], list[str]()
        if method not in rules.READS:
            document = await aside(len(body), partial(_parsed, body)) if body else None
            begins_turn = rules.is_prompt(method, path)
            session = await self._managed.session_of(client, path) if begins_turn else None
            place = await self._managed.check_write(
                client, method, path, directories=directories, body=document
            )
            directory = place or directory
            if begins_turn or path == "/session":
                named = document or {}
                rules.check_no_workspace(named.get("workspaceID"), "workspaceID")
                await asyncio.to_thread(check_files, named, self._root, directory)
                model_ids, is_edited = await self._models.qualify(named, session)
                if is_edited:
                    body = await aside(len(body or b""), lambda: write_json(named).encode())
        await _make(directory)
        model_id = model_ids.pop() if model_ids else None
        for other in model_ids:  # those of sub-agents: known from here on
            async with self._use_directory(directory, other):
                pass
        async with self._use_directory(directory, model_id) as boot:
            yield boot.client, body


_OWN = [(operation.method, operation.path) for operation in operations_of(NativeApi)]
_OWN_PATHS = frozenset(path for _, path in _OWN)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = read_strictly(body)
    except ValueError as error:
        raise InvalidRequestError(f"the body cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return document


async def _make(directory: Path) -> None:
    try:
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(
            f"directory: cannot be made: {error.strerror}", field="directory"
        ) from error


async def _pass_on(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """Answer with what opencode answered: a small body at once, any other as it comes."""
    status, headers = upstream.status, _picked(upstream.headers, RESPONSE_HEADERS)
    headers["request-id"] = request[REQUEST_ID]
    size = upstream.content_length
    if size is not None and size <= _SMALL_BYTES:
        try:
            return web.Response(body=await upstream.read(), status=status, headers=headers)
        except aiohttp.ClientError as error:
            raise ChildError("opencode's answer broke off") from error
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError as error:
        # The status is sent already: cutting the connection is the only honest end.
        if request.transport is not None:
            request.transport.close()
        raise ChildError("opencode's answer broke off") from error
    await response.write_eof()
    return response


def _picked(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}
