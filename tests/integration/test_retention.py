"""What is not used any more ages out; what is referred to stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.managed.sessions.retention import Retention
from sidecar.store.interface import Connection
from sidecar.store.sqlite import SqliteStore
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for
from tests.waiting import until


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[RunningSidecar]:
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    async with sidecar_for(make_settings(tmp_path, gateway.url), is_ready=False) as running:
        yield running
    await gateway.close()


@pytest.fixture
async def served(sidecar: RunningSidecar) -> AsyncIterator[tuple[aiohttp.ClientSession, Retention]]:
    async with http_client(sidecar.url) as http:
        yield http, Retention(database=sidecar.database, sessions=sidecar.sessions, days=1e-9)


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
    """First the session, then agent, environment and vault when their last use is as old."""
    http, retention = served
    agent = await make(http, "/v1/agents", {"name": "a", "model": "openai/gpt-4o"})
    environment = await make(http, "/v1/environments", {"name": "e"})
    vault = await make(http, "/v1/vaults", {"display_name": "v"})
    secret = {"type": "environment_variable", "secret_name": "A", "secret_value": "b"}
    await make(http, f"/v1/vaults/{vault}/credentials", {"auth": secret})
    body = {"agent": agent, "environment_id": environment, "vault_ids": [vault]}
    session = await make(http, "/v1/sessions", body)

    gone = await retention.sweep()
    assert gone == {"sessions": 1, "agents": 1, "environments": 1, "vaults": 1}
    for path in (
        f"/v1/sessions/{session}",
        f"/v1/agents/{agent}",
        f"/v1/environments/{environment}",
        f"/v1/vaults/{vault}",
    ):
        assert await status(http, path) == 404


async def test_what_a_session_used_lately_stays(
    served: tuple[aiohttp.ClientSession, Retention], sidecar: RunningSidecar
) -> None:
    """LAP keeps the ids of its vaults for good: what is old itself stays while a session refers to it, and
    for as long again after the last session that used it is gone."""
    http, _ = served
    agent = await make(http, "/v1/agents", {"name": "a", "model": "openai/gpt-4o"})
    environment = await make(http, "/v1/environments", {"name": "e"})
    vault = await make(http, "/v1/vaults", {"display_name": "v"})
    body = {"agent": agent, "environment_id": environment, "vault_ids": [vault]}
    session = await make(http, "/v1/sessions", body)
    kept = [f"/v1/agents/{agent}", f"/v1/environments/{environment}", f"/v1/vaults/{vault}"]

    def age(connection: Connection) -> None:
        old = "2020-01-01T00:00:00Z"
        for table in ("environments", "vaults", "agent_versions"):
            connection.execute(f"UPDATE {table} SET updated_at = ?", (old,))
        connection.execute("UPDATE resource_uses SET used_at = ?", (old,))

    retention = Retention(database=sidecar.database, sessions=sidecar.sessions, days=30)
    await sidecar.database.write(age)
    await retention.sweep()
    assert [await status(http, path) for path in kept] == [200] * 3
    async with http.delete(f"/v1/sessions/{session}") as response:
        assert response.status == 200
    await retention.sweep()
    assert [await status(http, path) for path in kept] == [200] * 3
    await sidecar.database.write(age)
    await retention.sweep()
    assert [await status(http, path) for path in kept] == [404] * 3


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

    assert not any((await retention.sweep()).values())
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
            await until(lambda: any(entry["log_level"] == "warning" for entry in logs))
            await another.open()

            async def is_gone() -> bool:
                return await status(http, f"/v1/agents/{agent}") != 200

            await until(is_gone)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await another.close()
    await gateway.close()
