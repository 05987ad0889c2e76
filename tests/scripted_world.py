"""A sidecar with the real opencode, and a gateway that answers each session as its test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.app import RunningSidecar
from tests.fakes.gateway_scripted import (
    Answer,
    Request,
    ScriptedGateway,
    chat_text,
    messages_text,
)
from tests.harness import http_client, make_settings, sidecar_for
from tests.raw_client import RawClient, plain
from tests.waiting import PATIENCE_SECONDS


@dataclass
class World:
    """A sidecar whose gateway answers each session by what its message says."""

    gateway: ScriptedGateway
    sidecar: RunningSidecar
    raw: RawClient

    async def turn(
        self,
        model: str,
        reply: Answer | Callable[[Request], Answer],
        *,
        seconds: float = PATIENCE_SECONDS,
    ) -> tuple[list[dict[str, Any]], int]:
        """Run one turn in a session of its own; return its events and its number of model requests."""
        session = await self.raw.new_session(model=model)
        mark = f"<{session}>"
        asked = 0

        def answer(request: Request) -> Answer:
            nonlocal asked
            asked += 1
            return reply if isinstance(reply, Answer) else reply(request)

        replies[mark] = answer
        return await self.raw.turn(session, mark, seconds=seconds), asked


@asynccontextmanager
async def scripted_gateway() -> AsyncIterator[ScriptedGateway]:
    """A gateway that answers each session as its `World.turn` says."""
    gateway = ScriptedGateway(by_mark)
    await gateway.start()
    yield gateway
    await gateway.close()


@asynccontextmanager
async def open_world(
    gateway: ScriptedGateway, directory: Path, /, **settings: Any
) -> AsyncIterator[World]:
    """A sidecar over that gateway, with the real opencode; `settings` are groups of settings."""
    made = make_settings(directory, gateway.url, **settings)
    async with sidecar_for(made) as sidecar, http_client(sidecar.url) as http:
        yield World(gateway, sidecar, RawClient(http))


replies: dict[str, Callable[[Request], Answer]] = {}


def by_mark(request: Request) -> Answer:
    """Answer as the session's test says. What names no session is a compaction, which gets its summary."""
    text = json.dumps(request.body)
    reply = next((reply for mark, reply in replies.items() if mark in text), None)
    if reply is not None:
        return reply(request)
    is_messages = request.path.endswith("/messages")
    return (messages_text if is_messages else chat_text)("a summary")


def error_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    [event] = plain(events, "session.error")
    error: dict[str, Any] = event["error"]
    assert events[-1]["stop_reason"] == {"type": "retries_exhausted"}
    return error


def is_second(request: Request) -> bool:
    """Whether a tool has answered."""
    return '"tool_result"' in (text := json.dumps(request.body)) or '"role": "tool"' in text


def call(index: int | None, id_: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    """A fragment of a tool call; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    whole = {"index": index, "id": id_, "type": "function"}
    return {
        **{key: value for key, value in whole.items() if value is not None},
        "function": {key: value for key, value in function.items() if value is not None},
    }


def bash(word: str) -> str:
    return json.dumps({"command": f"echo {word}", "description": "x"})
