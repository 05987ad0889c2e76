"""Runs `mcp_tools.py` as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import patience

_PROGRAM = Path(__file__).with_name("mcp_tools.py")


@dataclass(frozen=True, slots=True)
class McpProcess:
    """Where it listens."""

    url: str


@asynccontextmanager
async def mcp_server(token: str | None = None) -> AsyncIterator[McpProcess]:
    """Start the server, wait until it listens, stop it on leaving."""
    arguments = [token] if token else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_PROGRAM), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with patience():
            port = int(await process.stdout.readline())
        yield McpProcess(f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        await process.wait()
