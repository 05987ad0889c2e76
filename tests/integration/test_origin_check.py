"""Without a key: no page in a browser gets anything done here, by whatever name it calls us."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from sidecar.aiokit import TaskOwner
from sidecar.config import TracingSettings
from sidecar.http.responses import json_response
from sidecar.memory import MemoryReturn
from sidecar.metrics import make_metrics
from sidecar.tracing import make_tracer
from sidecar.wiring.public_listener import open_public_listener
from tests.fakes.small_sidecar import small_settings
from tests.harness import http_client, make_settings, sidecar_for

NOBODY = "http://127.0.0.1:9"
OTHER_SITE = "https://evil.example"
REBOUND = "rebind.evil.example"


async def _listener(stack: AsyncExitStack, directory: Path, **http: Any) -> URL:
    """A listener with one write, which answers the body that it was sent."""

    async def write(request: web.Request) -> web.Response:
        return json_response({"got": await request.text()})

    tasks = TaskOwner("test")
    stack.push_async_callback(tasks.close)
    url = await open_public_listener(
        make_settings(directory, NOBODY, http=http),
        [web.post("/session", write), web.get("/livez", write)],
        stack,
        metrics=make_metrics(lambda _model: False),
        tracer=make_tracer(TracingSettings()),
        tasks=tasks,
        memory=MemoryReturn(tasks),
    )
    return URL(url)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def keyless(stack: AsyncExitStack, tmp_path: Path) -> URL:
    return await _listener(stack, tmp_path, runtime_api_key=None)


async def _post(url: URL, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(url / "session", data=b"{}", headers=headers) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    "headers",
    [
        {
            "host": f"{REBOUND}:{{port}}",
            "origin": f"http://{REBOUND}:{{port}}",
            "sec-fetch-site": "same-origin",
        },
        {"host": f"{REBOUND}:{{port}}"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "no:host:at:all"},
        {"origin": OTHER_SITE, "content-type": "text/plain"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    ],
    ids=repr,
)
async def test_a_page_of_another_site_is_refused(keyless: URL, headers: dict[str, str]) -> None:
    """403 that says what to do: for a name that was rebound to us, and for a write across sites."""
    status, answer = await _post(
        keyless, {name: value.format(port=keyless.port) for name, value in headers.items()}
    )
    assert (status, answer["error"]["type"]) == (403, "permission_error")
    assert "set RUNTIME_API_KEY" in answer["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/x-www-form-urlencoded"},
        {"host": "localhost:9999"},
        {"host": "127.0.0.2"},
        {"host": "[::1]:80"},
        {"origin": "http://127.0.0.1:{port}"},
        {"origin": "http://127.0.0.1:{port}", "sec-fetch-site": "same-origin"},
    ],
    ids=repr,
)
async def test_programs_on_this_machine_are_served(keyless: URL, headers: dict[str, str]) -> None:
    """By each name of this machine, through a tunnel's port, and with what `curl -d` sends."""
    status, answer = await _post(
        keyless, {name: value.format(port=keyless.port) for name, value in headers.items()}
    )
    assert (status, answer) == (200, {"got": "{}"})


async def test_probes_are_for_all(keyless: URL) -> None:
    """They show states and versions only, and come by many names."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(keyless / "livez", headers={"host": "pod.example"}) as answer,
    ):
        assert answer.status == 200


async def test_where_something_else_authenticates_only_other_sites_are_refused(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    """Allowed anonymous, the server has whatever name it is given in front; its own pages may ask."""
    url = await _listener(
        stack, tmp_path, runtime_api_key=None, host="127.0.0.1", allow_anonymous=True
    )
    ours = {"host": "agents.example", "origin": "https://agents.example"}
    assert (await _post(url, ours))[0] == 200
    renamed = {"origin": "https://agents.example", "sec-fetch-site": "same-origin"}
    assert (await _post(url, renamed))[0] == 200
    assert (await _post(url, {"host": "agents.example", "origin": OTHER_SITE}))[0] == 403


async def test_a_key_is_enough(stack: AsyncExitStack, tmp_path: Path) -> None:
    """No page knows it, so what else comes with it does not matter."""
    url = await _listener(stack, tmp_path, runtime_api_key="a-key")
    headers = {"host": REBOUND, "origin": OTHER_SITE}
    assert (await _post(url, headers))[0] == 401
    assert (await _post(url, headers | {"x-api-key": "a-key"}))[0] == 200


async def test_the_keyless_admin_listener_is_not_reached_by_another_name(tmp_path: Path) -> None:
    """A rebound name reads neither state nor metrics."""
    settings = small_settings(tmp_path, NOBODY)
    http = settings.http.model_copy(update={"runtime_api_key": None})
    settings = settings.model_copy(update={"http": http})
    async with sidecar_for(settings, is_ready=False) as sidecar:
        assert sidecar.admin_url is not None
        async with http_client(sidecar.admin_url, None) as client:
            for path in ("/metrics", "/admin/state"):
                async with client.get(path, headers={"host": f"{REBOUND}:9464"}) as answer:
                    assert answer.status == 403
                async with client.get(path) as answer:
                    assert answer.status == 200
