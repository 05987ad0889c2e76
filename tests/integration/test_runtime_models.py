"""`GET /v1/models?runtime=`: other runtimes' lists through our middlewares, from fakes on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from sidecar.aiokit import TaskOwner
from sidecar.config import GatewaySettings, RuntimesSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.client import GatewayClient
from sidecar.http.middleware import request_context, require_key
from sidecar.http.models import ModelsApi
from sidecar.http.operations import routes_of
from sidecar.http.runtime_models import RuntimeModels
from tests.fakes.anthropic_api import HTML_PAGE, AnthropicApi, Fault, anthropic_model
from tests.fakes.cursor_api import CursorApi

KEY = "runtime-key"
ALWAYS_OLD = 0.000001
"""A refresh interval after which every list is old at once."""


class Server:
    """Our Models API with its neighbours."""

    def __init__(self, url: str, http: aiohttp.ClientSession, file_dir: Path) -> None:
        self.url = url
        self.http = http
        self.file_dir = file_dir

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        """Return (status, JSON or None, headers)."""
        async with self.http.get(self.url + path, headers=headers) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else None, response.headers


MakeServer = Callable[..., Awaitable[Server]]
ServeFake = Callable[[Any], Awaitable[str]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def serve(stack: AsyncExitStack) -> ServeFake:
    """Serve a fake; return its URL."""

    async def start(fake: Any) -> str:
        server = await stack.enter_async_context(TestServer(fake.app()))
        return str(server.make_url("/")).rstrip("/")

    return start


@pytest.fixture
async def make_server(stack: AsyncExitStack, tmp_path: Path) -> MakeServer:
    http = await stack.enter_async_context(aiohttp.ClientSession(headers={"x-api-key": KEY}))
    demo = DemoGateway()
    await demo.start()
    stack.push_async_callback(demo.close)

    async def make(**runtimes: Any) -> Server:
        tasks = TaskOwner("test")
        stack.push_async_callback(tasks.close)
        gateway = GatewaySettings()
        catalogue = Catalogue(
            client=GatewayClient(settings=gateway, base_url=demo.url, api_key=None, session=http),
            settings=gateway,
            file=tmp_path / "catalogue.json",
            tasks=tasks,
        )
        others = RuntimeModels(
            settings=RuntimesSettings(**runtimes),
            session=http,
            tasks=tasks,
            directory=tmp_path / "runtime-models",
        )
        app = web.Application(middlewares=[request_context, require_key(SecretStr(KEY))])
        app.add_routes(routes_of(ModelsApi(catalogue=catalogue, other_runtimes=lambda: others)))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return Server(url, http, tmp_path / "runtime-models")

    return make


def cursor_settings(url: str, fake: CursorApi, **more: Any) -> dict[str, Any]:
    return {"cursor_api_key": SecretStr(fake.key), "cursor_base_url": url} | more


async def test_cursor_through_the_server_passes_the_official_sdk(
    serve: ServeFake, make_server: MakeServer
) -> None:
    """A caller with only the sidecar's key gets Cursor's list, and the strict official SDK reads it."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    async with anthropic.AsyncAnthropic(
        api_key=KEY, base_url=server.url, max_retries=0, _strict_response_validation=True
    ) as client:
        page = await client.models.list(extra_query={"runtime": "cursor"})

    assert [m.id for m in page.data] == ["claude-4.5-opus-high-thinking", "gpt-5.2"]
    assert page.data[0].display_name == "Claude 4.5 Opus (thinking)"
    assert page.has_more is False


async def test_anthropic_is_paged_like_our_own_list(
    serve: ServeFake, make_server: MakeServer
) -> None:
    """`limit` and `after_id` walk the kept list; the vendor is asked once for all pages."""
    fake = AnthropicApi(models=[anthropic_model(f"m-{n}") for n in range(5)])
    url = await serve(fake)
    server = await make_server(anthropic_api_key=SecretStr(fake.key), anthropic_base_url=url)

    _, first, _ = await server.get("/v1/models?runtime=anthropic&limit=2")
    _, rest, _ = await server.get("/v1/models?runtime=anthropic&after_id=m-1")

    assert [m["id"] for m in first["data"]] == ["m-0", "m-1"]
    assert first["has_more"] is True
    assert [m["id"] for m in rest["data"]] == ["m-2", "m-3", "m-4"]
    assert rest["has_more"] is False
    assert len(fake.requests) == 1


async def test_runtime_opencode_is_our_own_list(make_server: MakeServer) -> None:
    """Asking for our own runtime by name is the same as asking for none."""
    server = await make_server()
    _, named, _ = await server.get("/v1/models?runtime=opencode")
    _, plain, _ = await server.get("/v1/models")

    assert named == plain
    assert "openai/gpt-4o" in [m["id"] for m in named["data"]]


@pytest.mark.parametrize(
    ("runtime", "word"),
    [("cursor", "CURSOR_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"), ("nope", "cursor")],
)
async def test_what_is_not_configured_says_which_setting(
    make_server: MakeServer, runtime: str, word: str
) -> None:
    """Without its key a runtime is off: 400 names the setting, and an unknown one what is known."""
    server = await make_server()
    status, body, _ = await server.get(f"/v1/models?runtime={runtime}")

    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert word in body["error"]["message"]


async def test_one_model_by_id(serve: ServeFake, make_server: MakeServer) -> None:
    """A single model comes from the same list; an unknown one is not found."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    status, model, _ = await server.get("/v1/models/gpt-5.2?runtime=cursor")
    asked = len(fake.requests)
    missing, body, _ = await server.get("/v1/models/gpt-9?runtime=cursor")

    assert (status, model["id"], model["runtime"]) == (200, "gpt-5.2", "cursor")
    assert (missing, body["error"]["type"]) == (404, "not_found_error")
    assert asked == 1


async def test_the_last_good_list_is_served_with_its_age(
    serve: ServeFake, make_server: MakeServer
) -> None:
    """When the vendor fails later, callers still get the list, and `age` says how old it is."""
    fake = CursorApi()
    settings = cursor_settings(await serve(fake), fake, refresh_seconds=ALWAYS_OLD)
    server = await make_server(**settings)
    _, good, _ = await server.get("/v1/models?runtime=cursor")
    fake.faults.extend([Fault(403, '{"message": "no"}')] * 2)
    status, kept, headers = await server.get("/v1/models?runtime=cursor")

    assert (status, kept) == (200, good)
    assert int(headers["age"]) >= 0


async def test_the_list_survives_a_restart_for_the_same_key_only(
    serve: ServeFake, make_server: MakeServer
) -> None:
    """A new process starts from disk; another key never sees the list of this one; no key is on disk."""
    fake = CursorApi()
    settings = cursor_settings(await serve(fake), fake)
    first = await make_server(**settings)
    _, good, _ = await first.get("/v1/models?runtime=cursor")
    asked = len(fake.requests)
    restarted = await make_server(**settings)
    _, kept, _ = await restarted.get("/v1/models?runtime=cursor")
    other = await make_server(**settings | {"cursor_api_key": SecretStr("cur_other-key")})
    status, _, _ = await other.get("/v1/models?runtime=cursor")

    assert kept == good
    assert status == 502
    assert len(fake.requests) > asked
    assert fake.key not in (first.file_dir / "cursor.json").read_text()
    assert (first.file_dir / "cursor.json").stat().st_mode & 0o077 == 0


async def test_callers_share_one_read(serve: ServeFake, make_server: MakeServer) -> None:
    """Ten callers of a cold list cause one request."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    answers = await asyncio.gather(*(server.get("/v1/models?runtime=cursor") for _ in range(10)))

    assert {status for status, _, _ in answers} == {200}
    assert len(fake.requests) == 1


async def test_refresh_on_demand(serve: ServeFake, make_server: MakeServer) -> None:
    """`refresh=true` reads the vendor anew although the list is fresh."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    await server.get("/v1/models?runtime=cursor")
    fake.items = ["brand-new"]
    _, page, _ = await server.get("/v1/models?runtime=cursor&refresh=true")

    assert [m["id"] for m in page["data"]] == ["brand-new"]


async def test_an_id_is_refused_only_by_a_list_that_is_read_then(
    serve: ServeFake, make_server: MakeServer
) -> None:
    """A model that is newer than the list is found; callers that miss share the reads; one that the runtime
    has not is a 404, and while the runtime cannot be read, no answer about it is given."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    await server.get("/v1/models?runtime=cursor")
    assert fake.items is not None
    fake.items.append("brand-new")
    status, model, _ = await server.get("/v1/models/brand-new?runtime=cursor")
    assert (status, model["id"]) == (200, "brand-new")

    asked = len(fake.requests)
    answers = await asyncio.gather(
        *(server.get(f"/v1/models/none-{n}?runtime=cursor") for n in range(10))
    )
    assert {status for status, _, _ in answers} == {404}
    assert len(fake.requests) - asked < 10

    fake.faults.extend([Fault(500)] * 4)
    status, _, _ = await server.get("/v1/models/none?runtime=cursor")
    assert status == 503


async def test_an_unchanged_list_is_not_sent_again(
    serve: ServeFake, make_server: MakeServer
) -> None:
    """The tag of an answer, offered back, is answered by 304 without a body."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    _, _, headers = await server.get("/v1/models?runtime=cursor")
    status, body, _ = await server.get(
        "/v1/models?runtime=cursor", **{"If-None-Match": headers["etag"]}
    )

    assert (status, body) == (304, None)


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Fault(401, '{"message": "no"}'), 502, "api_error"),
        (Fault(403, '{"message": "no"}'), 502, "api_error"),
        (Fault(429, "{}", {"retry-after": "77"}), 429, "rate_limit_error"),
        (Fault(500, "{}"), 503, "api_error"),
        (HTML_PAGE, 502, "api_error"),
    ],
)
async def test_a_failure_without_a_list_is_told_by_its_cause(
    serve: ServeFake, make_server: MakeServer, fault: Fault, status: int, kind: str
) -> None:
    """The vendor's refusal of our key is no 401 of ours; every answer is an envelope without the key."""
    fake = CursorApi()
    fake.faults.extend([fault] * 4)
    server = await make_server(**cursor_settings(await serve(fake), fake))
    got, body, headers = await server.get("/v1/models?runtime=cursor")

    assert (got, body["error"]["type"]) == (status, kind)
    assert fake.key not in json.dumps(body)
    if status == 429:
        assert headers["retry-after"] == "77"


async def test_the_sidecars_own_key_is_wanted(serve: ServeFake, make_server: MakeServer) -> None:
    """Other runtimes' lists stand behind the same key as everything else."""
    fake = CursorApi()
    server = await make_server(**cursor_settings(await serve(fake), fake))
    status, _, _ = await server.get("/v1/models?runtime=cursor", **{"x-api-key": "wrong"})

    assert status == 401
    assert fake.requests == []
