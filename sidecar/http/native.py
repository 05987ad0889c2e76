"""opencode's own API, forwarded by allow-list, byte for byte but for model names.

Forwarded is what the child's own `/doc` declares, minus what leaks keys, stops other people's turns or
opens the machine. Everything else is a JSON 404: the child would answer unknown paths with an HTML page
and status 200.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
from aiohttp import hdrs, web

from sidecar.errors import ChildError, InvalidRequestError, NotFoundError, PermissionDeniedError
from sidecar.http.bodies import read_body
from sidecar.http.middleware import REQUEST_ID
from sidecar.naming import GATEWAY_PROVIDER, ModelRef, child_id, gateway_id
from sidecar.opencode.client import ChildClient
from sidecar.wire.json_text import read_strictly

_DENIED = re.compile(
    r"""
      (/global)?/config(/|$) | /provider(/|$) # answer resolved keys, the relay's token among them
    | /auth(/|$)                              # keys of providers
    | /pty(/|$) | /experimental/ | /api/      # terminals; unstable surfaces
    | /tui(/|$) | /sync(/|$) | /log$
    """,
    re.VERBOSE,
)
_DENIED_WRITES = re.compile(r"/global/|/instance/|/mcp(/|$)|/project(/|$)")
"""Writes that reach beyond one session: they abort turns or change what others get."""

_PROMPT = re.compile(
    r"/session/(?P<id>ses_[A-Za-z0-9]+)/(message|prompt_async|command|summarize|shell|init)$"
)
"""What a POST to begins a turn."""

REQUEST_HEADERS = (hdrs.ACCEPT, hdrs.CONTENT_TYPE, "last-event-id", "traceparent")
"""Sent on to the child. The caller's key is not: the child has a password of its own."""
RESPONSE_HEADERS = (hdrs.CONTENT_TYPE, hdrs.CACHE_CONTROL, hdrs.ETAG, "x-accel-buffering")
DIRECTORY_HEADER = "x-opencode-directory"
_OWN_DIRECTORY = "native"
"""Below the workspaces: where requests work that name no directory. No session id looks like it."""
_STREAM_SUFFIX = "/event"

UseDirectory = Callable[[Path, str | None], AbstractAsyncContextManager[ChildClient]]


class NativeApi:
    """Forwards. Put its routes last: they match everything."""

    def __init__(
        self,
        *,
        wait_ready: Callable[[], Awaitable[ChildClient]],
        wait_serving: Callable[[], Awaitable[ChildClient]],
        boot: Callable[[], int],
        use_directory: UseDirectory,
        resolve_model: Callable[[str], Awaitable[ModelRef]],
        workspaces_dir: Path,
    ) -> None:
        self._wait_ready = wait_ready
        self._wait_serving = wait_serving
        self._boot = boot
        self._use_directory = use_directory
        self._resolve_model = resolve_model
        self._workspaces_dir = workspaces_dir
        self._declared: tuple[int, list[tuple[re.Pattern[str], frozenset[str]]]] = (0, [])

    def routes(self) -> list[web.RouteDef]:
        """Return the catch-all."""
        return [web.route("*", "/{path:.*}", self.forward)]

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Forward one request. Raises NotFoundError, PermissionDeniedError, ChildError."""
        path = request.rel_url.raw_path
        if path.startswith("/v1/") or path == "/":
            raise NotFoundError(f"no such route: {request.method} {path}")
        # A hold or a drain waits for turns that only their clients can end: those must get through.
        begins_turn = request.method == hdrs.METH_POST and _PROMPT.match(path) is not None
        client = await (self._wait_ready() if begins_turn else self._wait_serving())
        await self._check(client, request.method, path)
        directory = self._directory(request)
        body = await read_body(request, has_content=begins_turn) if request.can_read_body else None
        async with self._prepared(client, path, directory, body) as (client, body):
            headers = _picked(request.headers, REQUEST_HEADERS)
            upstream = await client.forward(
                request.method,
                path,
                query=request.rel_url.raw_query_string,
                headers=headers | {DIRECTORY_HEADER: quote(str(directory))},
                body=body,
            )
            async with upstream:
                return await _pass_on(request, upstream)

    async def _check(self, client: ChildClient, method: str, path: str) -> None:
        plain = unquote(path)
        is_write = method not in {hdrs.METH_GET, hdrs.METH_HEAD}
        if _DENIED.match(plain) or (is_write and _DENIED_WRITES.match(plain)):
            raise PermissionDeniedError(
                f"{method} {path}: this part of opencode's API is not forwarded; it would expose keys "
                "or disturb other sessions"
            )
        if not any(p.fullmatch(path) and method in m for p, m in await self._routes_of(client)):
            raise NotFoundError(f"no such route: {method} {path}")

    async def _routes_of(self, client: ChildClient) -> list[tuple[re.Pattern[str], frozenset[str]]]:
        boot, declared = self._declared
        if boot != self._boot() or not declared:
            document = await client.doc()
            declared = [
                (_path_pattern(template), frozenset(method.upper() for method in methods))
                for template, methods in document.get("paths", {}).items()
            ]
            self._declared = (self._boot(), declared)
        return declared

    def _directory(self, request: web.Request) -> Path:
        """Return the directory that the request works in, one of its own when it names none.

        A directory from a client is arbitrary file access, unless it is below our workspaces.
        """
        wanted = [*request.query.getall("directory", [])]
        wanted += [unquote(value) for value in request.headers.getall(DIRECTORY_HEADER, [])]
        root = self._workspaces_dir.resolve()
        try:
            directories = [Path(text).resolve() for text in wanted] or [root / _OWN_DIRECTORY]
        except (ValueError, OSError, RuntimeError) as error:  # a NUL; a loop of links
            raise InvalidRequestError(
                "directory: is no path that can be looked up", field="directory"
            ) from error
        if not all(directory.is_relative_to(root) for directory in directories):
            raise PermissionDeniedError(
                "directory: only directories below the sidecar's WORKDIR are served"
            )
        return directories[0]

    @asynccontextmanager
    async def _prepared(
        self, client: ChildClient, path: str, directory: Path, body: bytes | None
    ) -> AsyncIterator[tuple[ChildClient, bytes | None]]:
        """Hold the directory loaded; for a prompt, with the model that it names, qualified."""
        if path.endswith(_STREAM_SUFFIX):
            # A stream lives on for hours, and ends by itself when its directory is reloaded.
            yield client, body
            return
        model_id = None
        prompt = _PROMPT.match(path)
        if prompt is not None and body:
            document = _parsed(body)
            ref = await self._qualified(document)
            if ref is not None:
                body = json.dumps(document).encode()
                model_id = ref.model_id if ref.provider == GATEWAY_PROVIDER else None
            session = await client.get_session(prompt["id"])
            directory = Path(str(session.get("directory", "")))
        try:
            await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequestError(
                f"directory: cannot be made: {error.strerror}", field="directory"
            ) from error
        async with self._use_directory(directory, model_id) as ready:
            yield ready, body

    async def _qualified(self, document: dict[str, Any]) -> ModelRef | None:
        """Edit the model in place, in whichever of opencode's forms it came."""
        model = document.get("model")
        if isinstance(model, str) and model:
            ref = await self._resolve_model(model)
            document["model"] = str(ModelRef(ref.provider, child_id(ref.model_id)))
            return ref
        holder = model if isinstance(model, dict) else document
        provider, model_id = holder.get("providerID"), holder.get("modelID")
        if not isinstance(model_id, str) or not model_id:
            return None
        is_ours = provider in {None, "", GATEWAY_PROVIDER}
        ref = await self._resolve_model(
            gateway_id(model_id) if is_ours else f"{provider}/{model_id}"
        )
        holder["providerID"], holder["modelID"] = ref.provider, child_id(ref.model_id)
        return ref


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = read_strictly(body)
    except ValueError as error:
        raise InvalidRequestError(f"the body cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return document


async def _pass_on(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(
        status=upstream.status, headers=_picked(upstream.headers, RESPONSE_HEADERS)
    )
    response.headers["request-id"] = request[REQUEST_ID]
    await response.prepare(request)
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


def _path_pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]+\}", template)
    return re.compile("[^/]+".join(re.escape(part) for part in parts))
