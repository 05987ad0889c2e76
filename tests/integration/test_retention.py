"""What nobody uses any more ages out; what somebody refers to stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from sidecar.demo_gateway import DemoGateway
from sidecar.managed.sessions.retention import Retention
from sidecar.store.sqlite import SqliteStore
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, Retention]]:
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings, is_ready=False) as sidecar, http_client(sidecar.url) as http:
        yield http, Retention(database=sidecar.database, sessions=sidecar.sessions, days=1e-9)
    await gateway.close()


async def make(http: aiohttp.ClientSession, path: str, body: dict[str, object]) -> str:
    async with http.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["id"])


async def status(http: aiohttp.ClientSession, path: str) -> int:
    async with http.get(path) as response:
        return response.status


async def test_an_old_session_and_its_agent_go_together(
    served: tuple[aiohttp.ClientSession, Retention],
) -> None:
    """First the session, then the agent that nobody refers to; the environment stays."""
    http, retention = served
    agent = await make(http, "/v1/agents", {"name": "a", "model": "openai/gpt-4o"})
    environment = await make(http, "/v1/environments", {"name": "e"})
    session = await make(http, "/v1/sessions", {"agent": agent, "environment_id": environment})

    assert await retention.sweep() == (1, 1)
    assert await status(http, f"/v1/sessions/{session}") == 404
    assert await status(http, f"/v1/agents/{agent}") == 404
    assert await status(http, f"/v1/environments/{environment}") == 200


async def test_a_session_that_works_keeps_itself_and_its_agent(
    served: tuple[aiohttp.ClientSession, Retention],
) -> None:
    """A turn that runs (here: waits for the child) is activity, however old the row."""
    http, retention = served
    agent = await make(http, "/v1/agents", {"name": "a", "model": "openai/gpt-4o"})
    environment = await make(http, "/v1/environments", {"name": "e"})
    message = {"type": "user.message", "content": [{"type": "text", "text": "[[hang]]"}]}
    body = {"agent": agent, "environment_id": environment, "initial_events": [message]}
    session = await make(http, "/v1/sessions", body)

    assert await retention.sweep() == (0, 0)
    assert await status(http, f"/v1/sessions/{session}") == 200
    assert await status(http, f"/v1/agents/{agent}") == 200


async def test_a_store_that_fails_does_not_end_it(tmp_path: Path) -> None:
    """The next time it may work: what is old goes then."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings, is_ready=False) as sidecar, http_client(sidecar.url) as http:
        agent = await make(http, "/v1/agents", {"name": "a", "model": "openai/gpt-4o"})
        another = SqliteStore(sidecar.database.path)  # not open: all its jobs fail
        retention = Retention(
            database=another,
            sessions=sidecar.sessions,
            days=1e-9,
            first_pause_seconds=0.0,
            pause_seconds=0.01,
        )
        with capture_logs() as logs:
            running = asyncio.create_task(retention.run())
            async with asyncio.timeout(10):
                while not any(entry["log_level"] == "warning" for entry in logs):
                    await asyncio.sleep(0.01)
                await another.open()
                while await status(http, f"/v1/agents/{agent}") == 200:
                    await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await another.close()
    await gateway.close()
