"""Clients of a sidecar that dies now and then: mixed turns, answers to what waits, notes of what was seen."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.harness import read_frames, user_message
from tests.raw_client import RawClient

ASKING = {
    "type": "agent_toolset_20260401",
    "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
}
PLAIN = {"type": "agent_toolset_20260401"}
MCP = {
    "type": "mcp_toolset",
    "mcp_server_name": "platform",
    "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
    "configs": [],
}
LOOKUP = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks a word up.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}
RUNS_FILE = "runs.txt"
_RUN = f"[[bash: echo {{token}} >> {RUNS_FILE}]] [[then]] [[say: done]]"
TURNS = {
    "text": "[[say: {token}]]",
    "thinking": "[[think: hm]] [[say: {token}]]",
    "tool": _RUN,
    "long tool": f"[[bash: echo {{token}} >> {RUNS_FILE}; sleep 2]] [[then]] [[say: done]]",
    "mcp tool": '[[tool: echo {{"text": "{token}"}}]] [[then]] [[say: done]]',
    "custom tool": '[[tool: lookup {{"word": "{token}"}}]] [[then]] [[say: done]]',
    "previews": "{token} [[slow: 30x0.1 tick]]",
    "interrupted": "{token} [[slow: 100x0.1 tick]]",
    "429": "[[error: 429 x1]] {token} [[say: done]]",
    "500": "[[error: 500 x2]] {token} [[say: done]]",
    "401": "[[error: 401]] {token}",
    "cut stream": "{token} [[say: half]] [[cut]]",
    "no stream": "{token} [[page]]",
    "refusal": "{token} [[refuse]]",
    "silence": "{token} [[hang]]",
}
"""What a turn does, by kind. The odd ones are lies of the gateway. A `{token}` is in one message only."""
STOPPED_BY_CLIENT = {"interrupted", "silence", "cut stream"}
_TROUBLE = (aiohttp.ClientError, OSError, TimeoutError, AssertionError)
"""What a client meets while the sidecar is away; a refusal is an AssertionError of `RawClient`."""
_POLL_SECONDS = 0.5
_TURN_SECONDS = 240.0


@dataclass
class Book:
    """What one client knows of its session."""

    session_id: str
    tokens: list[str] = field(default_factory=list)
    """Of the messages that were accepted, as far as the client knows."""
    accepted_ids: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """Tokens whose request failed: the log says whether they were accepted."""
    streamed_ids: set[str] = field(default_factory=set)
    stuck: list[str] = field(default_factory=list)
    """Turns of which no end came within the bound."""


class StormClient:
    """One session and its client. `run` sends turn after turn until it is stopped."""

    def __init__(self, url: str, key: str, number: int, seed: int, mcp_url: str) -> None:
        self._servers = [{"type": "url", "name": "platform", "url": mcp_url}]
        self._url = url
        self._headers = {"x-api-key": key}
        self._number = number
        self._random = random.Random(f"{seed} {number}")  # reproducible on purpose
        self._reader: aiohttp.ClientResponse | None = None
        self.book = Book("")
        self.is_stopped = asyncio.Event()

    async def run(self) -> None:
        """Create the session, then send turns."""
        async with aiohttp.ClientSession(self._url, headers=self._headers) as http:
            raw = RawClient(http)
            tools = [ASKING if self._number % 4 == 0 else PLAIN, LOOKUP, MCP]
            self.book.session_id = await raw.new_session(tools=tools, mcp_servers=self._servers)
            reading = asyncio.create_task(self._read(raw), name=f"reader {self._number}")
            try:
                count = 0
                while not self.is_stopped.is_set():
                    count += 1
                    await self._turn(raw, f"token-{self._number}-{count}-")
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def hang_up(self) -> None:
        """Close the event stream without a word."""
        if self._reader is not None:
            self._reader.close()

    async def _turn(self, raw: RawClient, token: str) -> None:
        kind = self._random.choice(list(TURNS))
        texts = [TURNS[kind].format(token=f"{token}a")]
        if self._random.random() < 0.2:
            texts.append(TURNS["text"].format(token=f"{token}b"))
        tokens = [f"{token}{letter}" for letter in "ab"[: len(texts)]]
        try:
            sent = await raw.send_events(self.book.session_id, *map(user_message, texts))
        except _TROUBLE:
            self.book.unanswered += tokens
            await asyncio.sleep(_POLL_SECONDS)
        else:
            self.book.tokens += tokens
            self.book.accepted_ids += [event["id"] for event in sent]
        stop_after = self._random.uniform(0.0, 4.0) if kind in STOPPED_BY_CLIENT else None
        await self._see_through(raw, f"{kind} {token}", stop_after)

    async def _see_through(self, raw: RawClient, name: str, stop_after: float | None) -> None:
        """Wait until nothing runs and nothing waits in the session, answering what is asked."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < _TURN_SECONDS:
            with suppress(*_TROUBLE):
                if stop_after is not None and loop.time() - began > stop_after:
                    await raw.interrupt(self.book.session_id)
                    stop_after += 10.0
                events = await raw.events(self.book.session_id)
                if is_quiet(events):
                    return
                for answer in answers(events):
                    await raw.send_events(self.book.session_id, answer)
            await asyncio.sleep(_POLL_SECONDS)
        self.book.stuck.append(name)

    async def _read(self, raw: RawClient) -> None:
        """Keep a stream open, with previews, and note which events it showed."""
        path = f"/v1/sessions/{self.book.session_id}/events/stream?event_deltas[]=agent.message"
        while True:
            with suppress(*_TROUBLE):
                async with raw.http.get(path, timeout=aiohttp.ClientTimeout()) as self._reader:
                    async for event in read_frames(self._reader):
                        if event.get("processed_at") is not None:
                            self.book.streamed_ids.add(event["id"])
            await asyncio.sleep(_POLL_SECONDS)


def is_quiet(events: list[dict[str, Any]]) -> bool:
    """Whether all messages were taken up and the last turn has ended."""
    if any(event.get("processed_at") is None for event in events):
        return False
    statuses = [event for event in events if event["type"].startswith("session.status_")]
    messages = [n for n, event in enumerate(events) if event["type"] == "user.message"]
    if not statuses:
        return not messages
    last = statuses[-1]
    is_idle = last["type"] == "session.status_idle"
    is_after = not messages or events.index(last) > messages[-1]
    return is_idle and is_after and last["stop_reason"]["type"] != "requires_action"


def answers(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the session waits for."""
    statuses = [event for event in events if event["type"] == "session.status_idle"]
    if not statuses or statuses[-1]["stop_reason"]["type"] != "requires_action":
        return []
    by_id = {event["id"]: event for event in events}
    given = {event.get("tool_use_id") or event.get("custom_tool_use_id") for event in events}
    found: list[dict[str, Any]] = []
    for call in statuses[-1]["stop_reason"]["event_ids"]:
        if call in given:
            continue
        if by_id[call]["type"] == "agent.custom_tool_use":
            content = [{"type": "text", "text": "a fruit"}]
            found.append(
                {
                    "type": "user.custom_tool_result",
                    "custom_tool_use_id": call,
                    "content": content,
                }
            )
        else:
            found.append({"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"})
    return found
