"""Starts what an engine would start: the image's command with its and the platform's environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.deploy.image import Image
from tests.harness import http_client, until_idle, user_message
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, patience

_KEPT = ("PATH", "LANG", "TMPDIR")
_POLL_SECONDS = 0.2
_STOP_SECONDS = 45.0
"""The grace that compose.yaml and the manifests give."""


@dataclass(frozen=True)
class Container:
    """A running command of the image."""

    url: str
    environment: dict[str, str]
    process: asyncio.subprocess.Process
    log_file: Path

    has_launcher: bool
    """Whether `process` is not the sidecar but started it."""

    @property
    def sidecar(self) -> psutil.Process:
        """The sidecar's process. Raises psutil.NoSuchProcess."""
        process = psutil.Process(self.process.pid)
        return process.children()[0] if self.has_launcher else process

    async def stop(self) -> int:
        """SIGTERM, after the grace SIGKILL, as an engine does; return the exit code."""
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self.sidecar.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.process.kill()  # unshare's --kill-child takes the rest along
            return await self.process.wait()


async def run_once(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end; return exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


@asynccontextmanager
async def started(
    image: Image,
    data: Path,
    *,
    variables: Mapping[str, str],
    healthcheck: Sequence[str] | None = None,
    before: Sequence[str] = (),
) -> AsyncIterator[Container]:
    """Run the image's command until its health check passes; end it afterwards.

    `variables` are the platform's; ports and the data folder are replaced by free ones. `before` is a
    command that starts the command.
    """
    port = free_port()
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= image.environment | dict(variables)
    environment |= {"DATA_DIR": str(data), "PORT": str(port)}
    log_file = data.with_suffix(".log")
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *before, *image.command, env=environment, stdout=log, stderr=asyncio.subprocess.STDOUT
        )
    container = Container(f"http://127.0.0.1:{port}", environment, process, log_file, bool(before))
    try:
        await until_healthy(container, healthcheck or image.healthcheck)
        yield container
    finally:
        await container.stop()


async def until_healthy(container: Container, healthcheck: Sequence[str]) -> None:
    """Ask until the health check passes. Raises AssertionError with the log when it never does."""
    output = "never asked"
    try:
        async with patience():
            while container.process.returncode is None:
                code, output = await run_once(healthcheck, container.environment)
                if code == 0:
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        pass
    log = container.log_file.read_text(errors="replace")
    raise AssertionError(f"not healthy: {output}\n{log}")


async def run_turn(url: str, key: str, text: str) -> list[dict[str, Any]]:
    """Send one user message to a new session; return the events up to the end of the turn."""
    async with http_client(url, key) as client:
        models = await _json(client.get("/v1/models"))
        tools = [{"type": "agent_toolset_20260401"}]
        agent = {"name": "test", "model": models["data"][0]["id"], "tools": tools}
        config = {"type": "cloud", "networking": {"type": "unrestricted"}}
        session = {
            "agent": (await _json(client.post("/v1/agents", json=agent)))["id"],
            "environment_id": (
                await _json(client.post("/v1/environments", json={"name": "e", "config": config}))
            )["id"],
        }
        session_id = (await _json(client.post("/v1/sessions", json=session)))["id"]
        async with client.get(f"/v1/sessions/{session_id}/events/stream") as stream:
            events = {"events": [user_message(text)]}
            await _json(client.post(f"/v1/sessions/{session_id}/events", json=events))
            return await until_idle(stream)


def tool_output(events: list[dict[str, Any]]) -> str:
    """Return what the tools of a turn printed."""
    results = [event for event in events if event["type"] == "agent.tool_result"]
    return "\n".join(block["text"] for event in results for block in event["content"])


async def _json(request: Any) -> dict[str, Any]:
    response: aiohttp.ClientResponse
    async with request as response:
        body: dict[str, Any] = await response.json()
        assert response.status < 300, body
        return body
