"""A client of the Managed Agents API without an SDK, for tests that look at bytes, faults and timing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.harness import read_frames, user_message
from tests.waiting import PATIENCE_SECONDS

MODEL = "openai/gpt-4o"
TOOLSET = {"type": "agent_toolset_20260401"}


class RawClient:
    """Thin helpers over one `aiohttp.ClientSession`; every call checks for 200."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of a 200 answer."""
        async with self.http.request(method, path, json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    async def new_session(
        self, *, model: str = MODEL, vault_ids: Sequence[str] = (), **agent: Any
    ) -> str:
        """Create agent, environment and session; return the session's id."""
        body = {"name": "tester", "model": model, "tools": [TOOLSET], **agent}
        made = await self.call("POST", "/v1/agents", body)
        place = await self.call("POST", "/v1/environments", {"name": "place"})
        body = {"agent": made["id"], "environment_id": place["id"], "vault_ids": list(vault_ids)}
        session = await self.call("POST", "/v1/sessions", body)
        return str(session["id"])

    async def send(self, session_id: str, *texts: str) -> list[dict[str, Any]]:
        """Send user messages in one request; return them as accepted."""
        return await self.send_events(session_id, *map(user_message, texts))

    async def interrupt(self, session_id: str) -> list[dict[str, Any]]:
        """Send `user.interrupt`."""
        return await self.send_events(session_id, {"type": "user.interrupt"})

    async def send_events(self, session_id: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Send events; return them as accepted."""
        answer = await self.call("POST", f"/v1/sessions/{session_id}/events", {"events": events})
        data: list[dict[str, Any]] = answer["data"]
        return data

    async def events(self, session_id: str) -> list[dict[str, Any]]:
        """Return the whole history."""
        data: list[dict[str, Any]] = (await self.call("GET", f"/v1/sessions/{session_id}/events"))[
            "data"
        ]
        return data

    async def status(self, session_id: str) -> str:
        """Return the session's status."""
        return str((await self.call("GET", f"/v1/sessions/{session_id}"))["status"])

    @asynccontextmanager
    async def stream(self, session_id: str, query: str = "") -> AsyncIterator[EventReader]:
        """Open the event stream."""
        path = f"/v1/sessions/{session_id}/events/stream{query}"
        async with self.http.get(path, timeout=aiohttp.ClientTimeout()) as response:
            assert response.status == 200, await response.text()
            yield EventReader(response)

    async def turn(
        self, session_id: str, text: str, *, seconds: float = PATIENCE_SECONDS
    ) -> list[dict[str, Any]]:
        """Run one turn: open the stream, send, read to idle."""
        async with self.stream(session_id) as reader:
            await self.send(session_id, text)
            return await reader.until("session.status_idle", seconds=seconds)


class EventReader:
    """Reads one event stream in steps and remembers what it read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.seen: list[dict[str, Any]] = []
        self._frames = read_frames(response)

    async def until(
        self, type_: str, *, count: int = 1, seconds: float = PATIENCE_SECONDS
    ) -> list[dict[str, Any]]:
        """Read on to the `count`-th event of that type; return what this call read."""
        read: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(seconds):
                async for event in self._frames:
                    read.append(event)
                    self.seen.append(event)
                    count -= event["type"] == type_
                    if not count:
                        return read
        except TimeoutError:
            types = [event["type"] for event in read]
            raise AssertionError(f"no {type_} within {seconds} s, only {types}") from None
        raise AssertionError(f"the stream ended before {type_}: {[e['type'] for e in read]}")

    async def silence(self, seconds: float) -> None:
        """Check that no event arrives for so long (heartbeats are no events)."""
        try:
            async with asyncio.timeout(seconds):
                event = await anext(self._frames)
        except TimeoutError:
            return
        raise AssertionError(f"expected silence, got {event}")


def plain(events: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    """Return the events of one type."""
    return [event for event in events if event["type"] == type_]
