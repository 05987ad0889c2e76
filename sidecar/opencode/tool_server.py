"""The loopback MCP servers through which opencode calls a session's custom tools and its web tools.

One endpoint per server and session, `/mcp/{server}/{session id}`, guarded by a token that only that
session's entries in the child have. Stateless streamable HTTP with JSON answers (MCP revision 2025-06-18):
`initialize`, `ping`, `tools/list`, `tools/call`. The official `mcp` package serves ASGI only, which would
bring a second HTTP server into the process for these four methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from aiohttp import hdrs, web

from sidecar import __version__
from sidecar.aiokit import aside
from sidecar.ids import is_id
from sidecar.listening import listen, url_of
from sidecar.opencode.custom_tools import CustomTools, ToolResult
from sidecar.wire.json_text import read_leniently

_PROTOCOL_VERSION = "2025-06-18"
_PARSE_ERROR = -32700
_METHOD_NOT_FOUND = -32601
_INVALID_REQUEST = -32600

ToolsOf = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]
"""Returns the custom tools of a session, as in its agent."""


class ToolSource(Protocol):
    """The tools of one of the servers."""

    async def tools(self, session_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the session's tools: `name`, `description` and `input_schema` of each."""

    async def call(self, session_id: str, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Execute a call."""


class ClientTools:
    """The custom tools: the client executes them."""

    def __init__(self, custom_tools: CustomTools, tools_of: ToolsOf) -> None:
        self._custom_tools = custom_tools
        self._tools_of = tools_of

    async def tools(self, session_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the tools that the session's agent declares."""
        return await self._tools_of(session_id)

    async def call(self, session_id: str, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Wait for the client's answer."""
        return await self._custom_tools.call(session_id, name, arguments)


_log = structlog.get_logger(__name__)


class ToolServer:
    """Listens between `start` and `close`, on loopback unless opencode runs elsewhere.

    `sources` has the tools by server; `is_token(session id, token)` checks a caller's token; `reached_at` is
    our host as opencode sees it.
    """

    def __init__(
        self,
        *,
        is_token: Callable[[str, str], bool],
        sources: Mapping[str, ToolSource],
        host: str = "127.0.0.1",
        reached_at: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self._reached_at = reached_at
        self._is_token = is_token
        self._sources = sources
        self._runner: web.AppRunner | None = None

    def url(self, server: str, session_id: str) -> str:
        """Return the session's endpoint at one of the servers."""
        assert self._runner is not None
        return f"{url_of(self._reached_at, self._runner.addresses[0][1])}/mcp/{server}/{session_id}"

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_post("/mcp/{server}/{id}", self._post)
        # A call that the child gave up (an aborted turn) must not wait for the client any longer.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        await listen(self._runner, self._host, 0)

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        session_id = request.match_info["id"]
        offered = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
        if not is_id(session_id, "sesn") or not self._is_token(session_id, offered):
            return web.json_response({"error": "unknown session or token"}, status=401)
        source = self._sources.get(request.match_info["server"])
        if source is None:
            return web.json_response({"error": "unknown server"}, status=404)
        try:
            # As the events are read: a call is found again by its arguments.
            body = await request.read()
            call = await aside(len(body), lambda: read_leniently(body))
        except ValueError:
            return web.json_response(_error(None, _PARSE_ERROR, "not readable JSON"), status=400)
        if not isinstance(call, dict) or "method" not in call:
            return web.json_response(_error(None, _INVALID_REQUEST, "not a request"), status=400)
        if "id" not in call:
            return web.Response(status=202)
        return web.json_response(await self._answer(source, session_id, call))

    async def _answer(
        self, source: ToolSource, session_id: str, call: Mapping[str, Any]
    ) -> dict[str, Any]:
        method, parameters = call["method"], call.get("params") or {}
        if method == "initialize":
            return _result(call, _initialized(parameters))
        if method == "ping":
            return _result(call, {})
        if method == "tools/list":
            tools = await source.tools(session_id)
            return _result(call, {"tools": [_shown(tool) for tool in tools]})
        if method == "tools/call":
            return _result(call, await _call(source, session_id, parameters))
        return _error(call["id"], _METHOD_NOT_FOUND, f"no method {method!r}")


async def _call(
    source: ToolSource, session_id: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    name, arguments = str(parameters.get("name")), parameters.get("arguments") or {}
    try:
        answer = await source.call(session_id, name, arguments)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        _log.info("tool call ended without an answer", session=session_id, tool=name)
        answer = ToolResult([{"type": "text", "text": "the turn ended before an answer"}], True)
    return {"content": [_content(b) for b in answer.content], "isError": answer.is_error}


def _initialized(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": parameters.get("protocolVersion") or _PROTOCOL_VERSION,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "opencode-sidecar", "version": __version__},
    }


def _shown(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": tool["name"],
        "description": tool["description"],
        "inputSchema": tool["input_schema"],
    }


def _content(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "image" and block["source"]["type"] == "base64":
        source = block["source"]
        return {"type": "image", "data": source["data"], "mimeType": source["media_type"]}
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    if block["type"] == "document" and block["source"]["type"] == "text":
        return {"type": "text", "text": block["source"]["data"]}
    if block["type"] == "search_result":
        texts = "\n".join(part["text"] for part in block["content"])
        return {"type": "text", "text": f"{block['title']} ({block['source']})\n{texts}"}
    return {"type": "text", "text": f"[{block['type']} that cannot be shown to the model]"}


def _result(call: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call["id"], "result": result}


def _error(call_id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}
