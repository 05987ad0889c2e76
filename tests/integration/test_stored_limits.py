"""What is stored has bounds: a client that makes without end is refused, and what is there stays usable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.demo_gateway import DemoGateway
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for

_MODEL = "openai/gpt-4o"


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A sidecar that stores two of each kind."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = make_settings(tmp_path, gateway.url)
    bounds = ("agents", "agent_versions", "environments", "vaults", "vault_credentials", "sessions")
    storage = settings.storage.model_copy(update={f"max_{name}": 2 for name in bounds})
    settings = settings.model_copy(update={"storage": storage})
    async with sidecar_for(settings, is_ready=False) as running, http_client(running.url) as client:
        yield client
    await gateway.close()


async def post(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def made(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> str:
    status, answer = await post(http, path, body)
    assert status == 200, answer
    return str(answer["id"])


async def refused(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any], setting: str
) -> None:
    async with http.post(path, json=body) as response:
        answer = await response.json()
        assert response.status == 429, answer
        assert answer["error"]["type"] == "rate_limit_error"
        assert setting in answer["error"]["message"]
        assert response.headers["x-should-retry"] == "false"


async def test_each_kind_has_its_bound(http: aiohttp.ClientSession) -> None:
    """The third of each kind is a 429 that names the setting; what is there can be used."""
    agents = [await made(http, "/v1/agents", {"name": "a", "model": _MODEL}) for _ in range(2)]
    environments = [await made(http, "/v1/environments", {"name": f"e{n}"}) for n in range(2)]
    vaults = [await made(http, "/v1/vaults", {"display_name": f"v{n}"}) for n in range(2)]
    session = {"agent": agents[0], "environment_id": environments[0], "vault_ids": vaults[:1]}
    for _ in range(2):
        await made(http, "/v1/sessions", session)
    await refused(http, "/v1/agents", {"name": "a", "model": _MODEL}, "SIDECAR_STORAGE_MAX_AGENTS")
    await refused(http, "/v1/environments", {"name": "e"}, "SIDECAR_STORAGE_MAX_ENVIRONMENTS")
    await refused(http, "/v1/vaults", {"display_name": "v"}, "SIDECAR_STORAGE_MAX_VAULTS")
    await refused(http, "/v1/sessions", session, "SIDECAR_STORAGE_MAX_SESSIONS")


async def test_versions_and_credentials_are_bounded_by_their_owner(
    http: aiohttp.ClientSession,
) -> None:
    """One agent's versions and one vault's credentials; those of another one have room."""
    agent, other = [
        await made(http, "/v1/agents", {"name": "a", "model": _MODEL}) for _ in range(2)
    ]
    await made(http, f"/v1/agents/{agent}", {"version": 1, "name": "b"})
    change = {"version": 2, "name": "c"}
    await refused(http, f"/v1/agents/{agent}", change, "SIDECAR_STORAGE_MAX_AGENT_VERSIONS")
    await made(http, f"/v1/agents/{other}", {"version": 1, "name": "b"})

    vault = await made(http, "/v1/vaults", {"display_name": "v"})

    def credential(number: int) -> dict[str, Any]:
        auth = {
            "type": "environment_variable",
            "secret_name": f"NAME_{number}",
            "secret_value": "secret",
        }
        return {"auth": auth}

    path = f"/v1/vaults/{vault}/credentials"
    for number in range(2):
        await made(http, path, credential(number))
    await refused(http, path, credential(2), "SIDECAR_STORAGE_MAX_VAULT_CREDENTIALS")


async def test_what_is_deleted_makes_room(http: aiohttp.ClientSession) -> None:
    """Archived ones count, deleted ones do not."""
    first = await made(http, "/v1/environments", {"name": "a"})
    await made(http, "/v1/environments", {"name": "b"})
    await made(http, f"/v1/environments/{first}/archive", {})
    await refused(http, "/v1/environments", {"name": "c"}, "SIDECAR_STORAGE_MAX_ENVIRONMENTS")
    async with http.delete(f"/v1/environments/{first}") as response:
        assert response.status == 200
    await made(http, "/v1/environments", {"name": "c"})
