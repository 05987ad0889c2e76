"""A real MCP server (the official `mcp` package, streamable HTTP): `python mcp_tools.py [TOKEN]`.

Prints the port it listens on. With TOKEN every request needs it as a Bearer token, else 401. Tools:
`echo` gives its text back, `fail` raises, `picture` returns an image, `headers` the names and values
of the request's `authorization` header, `echo_token` the token in it in other shapes (as an error with
`is_error`), `slow` waits.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from echoes import shapes_of  # beside this program
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

server = MCPServer("tools of the tests")


@server.tool()
def echo(text: str) -> str:
    """Give the text back."""
    return text


@server.tool()
def fail(text: str) -> str:
    """Fail."""
    raise ToolError(f"cannot do {text}")


@server.tool()
def picture() -> Image:
    """Return a small image."""
    return Image(data=PICTURE, format="png")


@server.tool()
def headers(ctx: Context) -> str:
    """Return the authorization header that the caller sent."""
    return str((ctx.headers or {}).get("authorization", "none"))


@server.tool()
def echo_token(ctx: Context, is_error: bool = False) -> str:
    """Return the token that the caller sent, in many shapes."""
    sent = str((ctx.headers or {}).get("authorization", "none")).removeprefix("Bearer ")
    if is_error:
        raise ToolError("\n".join(shapes_of(sent)))
    return "\n".join(shapes_of(sent))


@server.tool()
async def slow(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "awake"


Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def guarded(app: Asgi, token: str) -> Asgi:
    """Refuse requests without the token."""
    wanted = f"Bearer {token}".encode()

    async def check(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or dict(scope["headers"]).get(b"authorization") == wanted:
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"unauthorized"})

    return check


def main() -> None:
    """Listen on a free loopback port until terminated."""
    app: Asgi = server.streamable_http_app(stateless_http=True)
    if len(sys.argv) > 1:
        app = guarded(app, sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
