"""A small MCP server over streamable HTTP: `echo`, `slow` (waits), `boom` (fails). Answers plain JSON.

`requests` keeps method and headers of every call, so that a test can see what opencode sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

_SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "seconds": {"type": "number"}},
}
_TOOLS = [
    {"name": name, "description": f"The tool {name}.", "inputSchema": _SCHEMA}
    for name in ("echo", "slow", "boom")
]


class McpServer:
    """Serves on a free loopback port between `start` and `close`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The endpoint."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/mcp"

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_post("/mcp", self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        call = await request.json()
        method = call.get("method", "")
        self.requests.append((method, {k.lower(): v for k, v in request.headers.items()}))
        if "id" not in call:
            return web.Response(status=202)
        answer = {"jsonrpc": "2.0", "id": call["id"], "result": await self._result(method, call)}
        return web.json_response(answer)

    async def _result(self, method: str, call: dict[str, Any]) -> dict[str, Any]:
        parameters = call.get("params") or {}
        if method == "initialize":
            return {
                "protocolVersion": parameters["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "recorded", "version": "1"},
            }
        if method == "tools/list":
            return {"tools": _TOOLS}
        if method == "tools/call":
            arguments = parameters.get("arguments") or {}
            if parameters["name"] == "slow":
                await asyncio.sleep(arguments.get("seconds", 1))
            return {
                "content": [{"type": "text", "text": str(arguments.get("text", "nothing"))}],
                "isError": parameters["name"] == "boom",
            }
        return {}
