"""Clients that measure: one of the sidecar's API, one of opencode's own. Both time the same turn."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.processes import BASIC_MODEL, RUNTIME_KEY

_TURN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class TurnTimes:
    """Seconds from sending a user message to its first text, to the end of the turn, and to the answer."""

    first_text: float
    whole: float
    accepted: float = 0.0


@asynccontextmanager
async def sidecar_client(url: str) -> AsyncIterator[SidecarClient]:
    """A client with our key and as many connections as it needs."""
    async with aiohttp.ClientSession(
        url,
        headers={"x-api-key": RUNTIME_KEY},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as http:
        yield SidecarClient(http)


class SidecarClient:
    """The calls of the Managed Agents API that the benchmarks make; each checks for 200."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self._environment_id: str | None = None

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of a 200 answer."""
        async with self.http.request(method, path, json=body) as response:
            raw = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{method} {path} answered {response.status}: {raw[:300]!r}")
            return json.loads(raw)

    async def new_agent(self, model: str = BASIC_MODEL) -> str:
        """Create an agent; return its id."""
        body = {"name": "bench", "model": model, "tools": [{"type": "agent_toolset_20260401"}]}
        return str((await self.call("POST", "/v1/agents", body))["id"])

    async def new_session(self, agent_id: str) -> str:
        """Create a session; return its id."""
        if self._environment_id is None:
            made = await self.call("POST", "/v1/environments", {"name": "bench"})
            self._environment_id = str(made["id"])
        body = {"agent": agent_id, "environment_id": self._environment_id}
        return str((await self.call("POST", "/v1/sessions", body))["id"])

    async def send(self, session_id: str, text: str) -> None:
        """Send one user message."""
        event = {"type": "user.message", "content": [{"type": "text", "text": text}]}
        await self.call("POST", f"/v1/sessions/{session_id}/events", {"events": [event]})

    @asynccontextmanager
    async def stream(
        self, session_id: str, *, previews: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the session's event stream."""
        query = "?event_deltas[]=agent.message" if previews else ""
        path = f"/v1/sessions/{session_id}/events/stream{query}"
        async with self.http.get(path) as response:
            response.raise_for_status()
            yield response

    async def turn(
        self, session_id: str, text: str, *, together: asyncio.Barrier | None = None
    ) -> TurnTimes:
        """Run one turn as a client does that shows text while it comes.

        Turns that share a barrier are sent at one moment, when the streams of all are open.
        """
        async with self.stream(session_id, previews=True) as response:
            if together is not None:
                await together.wait()
            began, first = time.perf_counter(), 0.0
            sending = asyncio.create_task(self._timed_send(session_id, text))
            async with asyncio.timeout(_TURN_SECONDS):
                async for event in frames(response):
                    if event["type"] == "event_delta" and not first:
                        first = time.perf_counter() - began
                    elif event["type"] == "session.error":
                        raise RuntimeError(f"the turn failed: {event}")
                    elif event["type"] == "session.status_idle":
                        break
            whole = time.perf_counter() - began
            accepted = await sending
        if not first:
            raise RuntimeError("the turn had no text")
        return TurnTimes(first, whole, accepted)

    async def _timed_send(self, session_id: str, text: str) -> float:
        began = time.perf_counter()
        await self.send(session_id, text)
        return time.perf_counter() - began


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the data of each server-sent event."""
    pending = b""
    while data := await response.content.readany():
        *complete, pending = (pending + data).split(b"\n\n")
        for frame in complete:
            _, found, text = frame.rpartition(b"data: ")
            if found:
                yield json.loads(text)
