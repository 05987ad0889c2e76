"""The public listener lists models at once; everything else waits until its handlers are loaded."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.config import Settings
from sidecar.errors import NotServingError, SettingsError
from sidecar.gateway import catalogue_file
from sidecar.http.responses import json_response
from sidecar.wiring.public_listener import PublicListener, open_public_listener
from tests.harness import http_client, make_settings

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A catalogue is on disk, and its gateway is away."""
    facts = {"models": {"openai/gpt-4o": {}, "house-model": {}}}
    made = make_settings(tmp_path, NOBODY)
    file = made.storage.data_dir / "catalogue.json"
    catalogue_file.save(file, gateway_url=NOBODY, fetched_at=1.0, facts=facts)
    return made


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def listener(settings: Settings, stack: AsyncExitStack) -> PublicListener:
    return await open_public_listener(settings, stack)


async def echo(request: web.Request) -> web.Response:
    return json_response({"name": request.match_info["name"]})


async def test_the_models_are_listed_before_the_rest_is_there(listener: PublicListener) -> None:
    """The true list from disk, one model of it, and only for who has the key."""
    async with http_client(listener.url) as http:
        async with http.get("/v1/models") as answer:
            assert answer.status == 200
            listed = [item["id"] for item in (await answer.json())["data"]]
            assert sorted(listed) == ["house-model", "openai/gpt-4o"]
        async with http.get("/v1/models/openai/gpt-4o") as answer:
            assert answer.status == 200
    async with http_client(listener.url, key=None) as http, http.get("/v1/models") as answer:
        assert answer.status == 401


async def test_probes_tell_that_it_is_not_all_there(listener: PublicListener) -> None:
    """Alive, but neither started nor ready."""
    told = {}
    async with http_client(listener.url, key=None) as http:
        for path in ("/livez", "/startupz", "/readyz", "/health"):
            async with http.get(path) as answer:
                told[path] = (answer.status, await answer.json())
    assert {path: status for path, (status, _) in told.items()} == {
        "/livez": 200,
        "/startupz": 503,
        "/readyz": 503,
        "/health": 200,
    }
    assert told["/health"][1]["ok"] is False
    assert told["/health"][1]["opencode"]["state"] == "stopped"


async def test_another_request_waits_and_is_then_served(listener: PublicListener) -> None:
    """Nobody is told 404 or 503 for a route that comes a moment later."""
    async with http_client(listener.url) as http:
        asked = asyncio.create_task(http.get("/v1/things/a"))
        async with http.get("/v1/models"):
            assert not asked.done()
        listener.deferred.open([web.get("/v1/things/{name}", echo)])
        async with await asked as answer:
            assert (answer.status, await answer.json()) == (200, {"name": "a"})
        async with http.get("/v1/nothing") as answer:
            assert answer.status == 404
        async with http.post("/v1/things/a") as answer:
            assert answer.status == 405
            assert "allowed: GET, HEAD" in (await answer.json())["error"]["message"]
        async with http.post("/v1/models") as answer:
            assert answer.status == 405


async def test_who_waits_for_a_start_that_fails_gets_the_envelope(
    listener: PublicListener, stack: AsyncExitStack
) -> None:
    """503 with retry-after, before the listener closes."""
    async with http_client(listener.url) as http:
        asked = asyncio.create_task(http.post("/v1/agents", json={}))
        async with http.get("/v1/models"):
            assert not asked.done()
        closing = asyncio.create_task(stack.aclose())
        async with await asked as answer:
            body = json.loads(await answer.read())
        assert answer.status == NotServingError.status == 503
        assert answer.headers["retry-after"] == "1"
        assert body["error"]["type"] == "api_error"
        await closing
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get("/livez")


async def test_a_taken_port_is_refused_by_name(listener: PublicListener, tmp_path: Path) -> None:
    """The message names the variable; nothing is left open."""
    port = int(listener.url.rpartition(":")[2])
    taken = make_settings(tmp_path / "other", NOBODY, http={"port": port})
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingsError, match=f"PORT: cannot listen on 127.0.0.1:{port}"):
            await open_public_listener(taken, stack)
