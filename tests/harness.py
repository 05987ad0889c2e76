"""What the integration and end-to-end tests share: a sidecar in this process, and readers of streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr

from sidecar.app import RunningSidecar, running
from sidecar.config import (
    AdminSettings,
    ChildSettings,
    ConfinementSettings,
    GatewaySettings,
    HttpSettings,
    LogSettings,
    PackageSettings,
    RelaySettings,
    Settings,
    StorageSettings,
    TracingSettings,
    TurnSettings,
    WebSettings,
)
from tests.openapi_check import CheckedResponse, check_frame
from tests.waiting import PATIENCE_SECONDS

RUNTIME_KEY = "runtime-key-of-the-tests"
GATEWAY_KEY = "gateway-key-of-the-tests"


def make_settings(data_dir: Path, gateway_url: str | None, **groups: dict[str, Any]) -> Settings:
    """Return settings for a sidecar on a free port; keyword groups override single fields."""
    http = {"host": "127.0.0.1", "port": 0, "runtime_api_key": SecretStr(RUNTIME_KEY)}
    http["bookkeeping_events"] = True
    gateway = {
        "base_url": gateway_url,
        "api_key": SecretStr(GATEWAY_KEY),
        "refresh_seconds": 3600.0,
    }
    return Settings(
        http=HttpSettings(**(http | groups.get("http", {}))),
        storage=StorageSettings(data_dir=data_dir, **groups.get("storage", {})),
        gateway=GatewaySettings(**(gateway | groups.get("gateway", {}))),
        child=ChildSettings(**({"drain_seconds": 1.0} | groups.get("child", {}))),
        turn=TurnSettings(**groups.get("turn", {})),
        # A fake in the place of opencode is a program of the tests: the walls keep it from its own files.
        confinement=ConfinementSettings(
            **({"mode": "off"} if "binary" in groups.get("child", {}) else {})
        ),
        log=LogSettings(**groups.get("log", {})),
        tracing=TracingSettings(**groups.get("tracing", {})),
        relay=RelaySettings(**groups.get("relay", {})),
        packages=PackageSettings(**groups.get("packages", {})),
        web=WebSettings(**groups.get("web", {})),
        admin=AdminSettings(**({"port": 0} | groups.get("admin", {}))),
    )


@asynccontextmanager
async def sidecar_for(
    settings: Settings, *, is_ready: bool = True
) -> AsyncIterator[RunningSidecar]:
    """Run a sidecar; by default wait until its child is ready."""
    async with running(settings) as sidecar:
        if is_ready:
            await sidecar.supervisor.wait_ready(PATIENCE_SECONDS)
        yield sidecar


@asynccontextmanager
async def http_client(
    url: str, key: str | None = RUNTIME_KEY
) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client with our key. Every answer that it reads is held against the OpenAPI document."""
    headers = {"x-api-key": key} if key else {}
    async with aiohttp.ClientSession(
        url, headers=headers, response_class=CheckedResponse
    ) as session:
        yield session


async def read_frames(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the data of each frame of a session's stream, held against the OpenAPI document.

    `event:` has to name its type.
    """
    name = ""
    async for raw in response.content:
        line = raw.decode("ascii").rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            assert event["type"] == name
            check_frame(event)
            yield event


async def until_idle(
    response: aiohttp.ClientResponse, *, idles: int = 1, seconds: float = PATIENCE_SECONDS
) -> list[dict[str, Any]]:
    """Read a stream to the `idles`-th `session.status_idle`."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(seconds):
        async for event in read_frames(response):
            events.append(event)
            idles -= event["type"] == "session.status_idle"
            if not idles:
                return events
    raise AssertionError(f"the stream ended without an idle: {[e['type'] for e in events]}")


def types_of(events: list[Any]) -> list[str]:
    """Return the types, for comparing orders."""
    return [event["type"] if isinstance(event, dict) else event.type for event in events]


def text_of(events: list[Any]) -> str:
    """Return the agent's text."""
    plain = [event if isinstance(event, dict) else event.model_dump() for event in events]
    messages = [event for event in plain if event["type"] == "agent.message"]
    return "".join(block["text"] for event in messages for block in event["content"])


HELD_CALL = "[[bash: until test -e go; do sleep 0.1; done; echo free]]"
"""A call of bash that ends when the test calls `release`: its turn runs for as long as the test needs."""


def release(workspace: Path) -> None:
    """Let a held call of the session whose directory that is go on."""
    (workspace / "go").touch()


def user_message(text: str) -> dict[str, Any]:
    """Return a `user.message` event."""
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}
