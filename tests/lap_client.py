"""A client shaped like LAP's control plane: its calls, its parser, and the four readers of a stream.

LAP decodes UTF-8 per network chunk, dies of anything that is not a JSON object with a type, never
reconnects and has no time-out; each of its readers opens the stream at another moment of a turn.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from sidecar.app import RunningSidecar
from tests.harness import RUNTIME_KEY, types_of
from tests.raw_client import RawClient
from tests.waiting import PATIENCE_SECONDS, until

HEADERS = {
    "x-api-key": RUNTIME_KEY,
    "content-type": "application/json",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "managed-agents-2026-04-01",
}
TERMINAL = ("session.status_idle", "session.error")


class LapStream:
    """LAP's parser on an open response. Nothing is read before `drain` or `until` is called."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._pending = ""
        self.comments = 0
        self.chunks: list[bytes] = []

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield events as LAP sees them."""
        async for chunk in self._response.content.iter_any():
            self.chunks.append(chunk)
            self._pending += chunk.decode("utf-8")  # per chunk: a split character is fatal
            while "\n\n" in self._pending:
                frame, self._pending = self._pending.split("\n\n", 1)
                if (event := self._parse(frame)) is not None:
                    yield event

    async def until(self, *types: str, seconds: float = PATIENCE_SECONDS) -> list[dict[str, Any]]:
        """Read to the first event of one of these types."""
        seen = []
        async with asyncio.timeout(seconds):
            async for event in self.events():
                seen.append(event)
                if event["type"] in types:
                    return seen
        raise AssertionError(f"the stream ended after {types_of(seen)}")

    async def drain(self) -> list[dict[str, Any]]:
        """Read to the end of a turn."""
        return await self.until(*TERMINAL)

    async def heard_heartbeats(
        self, count: int, seconds: float = PATIENCE_SECONDS
    ) -> list[dict[str, Any]]:
        """Read until so many comments have come; return the events among them."""
        seen: list[dict[str, Any]] = []
        target = self.comments + count

        async def read() -> None:
            async for event in self.events():
                seen.append(event)  # noqa: PERF401  # what came before the cancellation counts

        reading = asyncio.create_task(read())
        try:
            async with asyncio.timeout(seconds):
                while self.comments < target:
                    assert not reading.done(), "the stream ended"
                    await asyncio.sleep(0.02)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return seen

    def _parse(self, frame: str) -> dict[str, Any] | None:
        data = []
        for line in frame.split("\n"):
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("data:"):
                data.append(line.removeprefix("data:").lstrip())
        if not data:
            return None
        event = json.loads("\n".join(data))
        assert isinstance(event["type"], str)
        assert isinstance(event["id"], str)
        return dict(event)


class Lap:
    """The calls of the control plane."""

    def __init__(self, sidecar: RunningSidecar | None, http: aiohttp.ClientSession) -> None:
        """`sidecar` is needed to wait for what the API does not show."""
        self._sidecar = sidecar
        self.http = http
        self.raw = RawClient(http)

    async def new_session(self) -> str:
        """Create agent, environment and session with the bodies that LAP sends."""
        agent = await self.raw.call(
            "POST",
            "/v1/agents",
            {
                "name": "helper",
                "model": {"id": "openai/gpt-4o"},
                "system": "",
                "tools": [{"type": "agent_toolset_20260401"}],
                "metadata": {"local_agent_id": "l1", "source": "litellm-agent-platform"},
            },
        )
        place = await self.raw.call(
            "POST",
            "/v1/environments",
            {
                "name": "helper environment",
                "config": {"type": "cloud", "networking": {"type": "unrestricted"}},
            },
        )
        session = await self.raw.call(
            "POST",
            "/v1/sessions",
            {
                "agent": agent["id"],
                "environment_id": place["id"],
                "title": "helper session",
                "metadata": {"local_session_id": "s1", "initial_prompt": "hello"},
            },
        )
        return str(session["id"])

    @asynccontextmanager
    async def stream(self, session: str, query: str = "") -> AsyncIterator[LapStream]:
        """Open the stream and read nothing yet. LAP sends no query."""
        async with self.http.get(
            f"/v1/sessions/{session}/events/stream?{query}",
            headers={"accept": "text/event-stream"},
            timeout=aiohttp.ClientTimeout(),
        ) as response:
            assert response.status == 200
            yield LapStream(response)

    async def drained_turn(self, session: str, text: str) -> list[dict[str, Any]]:
        """POST the prompt, then open the stream and read it to the end of the turn."""
        await self.raw.send(session, text)
        async with self.stream(session) as stream:
            return await stream.drain()

    async def model_asked(self, session: str) -> None:
        """Wait until the running turn has asked the model."""
        async with self.stream(session, "types[]=span.model_request_start") as stream:
            await stream.until("span.model_request_start")

    async def turn_over(self, session: str) -> None:
        """Wait for the end of the turn without opening a stream."""
        assert self._sidecar is not None
        actor = self._sidecar.engine.live.peek(session)
        if actor is not None and actor.turn is not None:
            await actor.turn.done.wait()
        assert await self.raw.status(session) == "idle"

    async def no_stream_open(self, session: str) -> None:
        """Wait until the sidecar has noticed that the session's readers are gone."""
        sidecar = self._sidecar
        assert sidecar is not None
        await until(lambda: not sidecar.log.reader_count(session))


def shown(events: list[dict[str, Any]]) -> str:
    """Return the text that LAP shows: `text` fields joined without a separator."""
    return "".join(event["text"] for event in events if event["type"] == "agent.message")
