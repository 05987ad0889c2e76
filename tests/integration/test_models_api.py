"""`/v1/models` through our middlewares on a real socket, judged by the official SDK in strict mode."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest
from aiohttp import web
from pydantic import SecretStr

from sidecar.aiokit import TaskOwner
from sidecar.config import GatewaySettings
from sidecar.demo_gateway import DemoGateway, DemoModel
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.client import GatewayClient
from sidecar.http.middleware import request_context, require_key
from sidecar.http.models import ModelsApi
from sidecar.http.operations import routes_of
from tests.fakes.gateway_fixed import Fixed, FixedGateway

KEY = "runtime-key"
LISTED = (
    "bedrock/anthropic.claude-sonnet-4",
    "claude-sonnet-4-5",
    "house-model",
    "ollama/qwen3:8b",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
)


class Server:
    """Our Models API on a socket, over a catalogue that refreshes only when asked."""

    def __init__(self, url: str, catalogue: Catalogue, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.catalogue = catalogue
        self.http = http

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        """Return (status, JSON or None, headers)."""
        async with self.http.get(self.url + path, headers=headers) as response:
            body = await response.read()
            return response.status, await response.json() if body else None, response.headers

    async def ids(self, query: str) -> list[str]:
        status, page, _ = await self.get(f"/v1/models?{query}")
        assert status == 200, page
        return [item["id"] for item in page["data"]]


MakeServer = Callable[[str], Awaitable[Server]]


@pytest.fixture
async def demo() -> AsyncIterator[DemoGateway]:
    gateway = DemoGateway()
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def make_server(tmp_path: Path) -> AsyncIterator[MakeServer]:
    tasks = TaskOwner("test")
    runners = []
    async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as http:

        async def make(gateway_url: str) -> Server:
            settings = GatewaySettings(aliases={"fast": "openai/gpt-4o-mini"})
            client = GatewayClient(
                settings=settings, base_url=gateway_url, api_key=None, session=http
            )
            catalogue = Catalogue(
                client=client, settings=settings, file=tmp_path / "catalogue.json", tasks=tasks
            )
            app = web.Application(middlewares=[request_context, require_key(SecretStr(KEY))])
            app.add_routes(routes_of(ModelsApi(catalogue=catalogue)))
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return Server(f"http://127.0.0.1:{runner.addresses[0][1]}", catalogue, http)

        yield make
        for runner in runners:
            await runner.cleanup()
        await tasks.close()


@pytest.fixture
async def server(demo: DemoGateway, make_server: MakeServer) -> Server:
    return await make_server(demo.url)


def sdk(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    )


async def test_strict_sdk_lists_and_retrieves(server: Server) -> None:
    """The official SDK in strict mode reads the whole list and every model by its own id."""

    def read() -> tuple[list[str], list[str], list[str]]:
        with sdk(server.url) as client:
            listed = [model.id for model in client.models.list()]
            beta = [model.id for model in client.beta.models.list()]
            return listed, beta, [client.models.retrieve(i).id for i in listed]

    listed, beta, retrieved = await asyncio.to_thread(read)
    assert listed == list(LISTED)
    assert beta == listed
    assert retrieved == listed


async def test_strict_sdk_pages_in_both_directions(server: Server) -> None:
    """Pages of two, forwards by `after_id` and backwards by `before_id`, give everything once."""

    def read() -> tuple[list[str], list[str]]:
        with sdk(server.url) as client:
            forwards = [model.id for model in client.models.list(limit=2)]
            page = client.models.list(limit=2, before_id=LISTED[-1])
            pages = [[m.id for m in page.data]]
            while page.has_next_page():
                page = page.get_next_page()
                pages.insert(0, [m.id for m in page.data])
            return forwards, [i for ids in pages for i in ids]

    forwards, backwards = await asyncio.to_thread(read)
    assert forwards == list(LISTED)
    assert backwards == list(LISTED[:-1])


async def test_every_field(server: Server) -> None:
    """A known model has every field of the contract, and those that OpenAI clients read."""
    _, model, headers = await server.get("/v1/models/claude-sonnet-4-5")
    capabilities = model.pop("capabilities")
    assert model == {
        "type": "model",
        "id": "claude-sonnet-4-5",
        "display_name": "claude-sonnet-4-5",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "line": "sonnet",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "deprecated_at": None,
        "retires_at": None,
        "object": "model",
        "created": 0,
        "owned_by": "litellm",
    }
    assert capabilities["image_input"] == {"supported": True}
    assert capabilities["thinking"]["types"]["enabled"] == {"supported": True}
    assert capabilities["effort"]["medium"] == {"supported": True}
    assert capabilities["effort"]["max"] == {"supported": False}
    assert headers["request-id"].startswith("req_")


async def test_unknowns_are_null(server: Server) -> None:
    """Of a model the gateway knows nothing about, limits and capabilities are null, never invented."""
    _, model, _ = await server.get("/v1/models/house-model")
    for field in ("max_input_tokens", "max_tokens", "capabilities", "line"):
        assert model[field] is None


async def test_page_is_a_superset(server: Server) -> None:
    """The page serves Anthropic's clients and those that look for `object: list`."""
    _, page, _ = await server.get("/v1/models")
    assert page["object"] == "list"
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, LISTED[0], LISTED[-1])


@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai%2Fgpt-4o", "openai/gpt-4o"),
        ("openai%2fgpt-4o", "openai/gpt-4o"),
        ("litellm%2Fopenai%2Fgpt-4o", "openai/gpt-4o"),
        ("litellm/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("ollama%2Fqwen3:8b", "ollama/qwen3:8b"),
        ("ollama/qwen3%3A8b", "ollama/qwen3:8b"),
        ("fast", "openai/gpt-4o-mini"),
        ("odd%20name%2525@1", "odd name%25@1"),
        ("text-embedding-3-small", "text-embedding-3-small"),
    ],
)
async def test_retrieve_by_any_spelling(
    demo: DemoGateway, server: Server, path: str, model_id: str
) -> None:
    """Raw or encoded slashes, the prefix, an alias, a hidden model: each finds its entry."""
    demo.models["odd name%25@1"] = DemoModel(id="odd name%25@1")
    from yarl import URL

    url = URL(f"{server.url}/v1/models/{path}", encoded=True)
    async with server.http.get(url) as response:
        assert response.status == 200
        assert (await response.json())["id"] == model_id


@pytest.mark.parametrize("path", ["nope", "gpt-4o", "a%00b", "..%2F..%2Fetc", "openai%2F"])
async def test_unknown_model_is_404(server: Server, path: str) -> None:
    """An unknown id is 404 in the envelope."""
    from yarl import URL

    url = URL(f"{server.url}/v1/models/{path}", encoded=True)
    async with server.http.get(url) as response:
        assert response.status == 404
        body = await response.json()
    assert body["error"]["type"] == "not_found_error"
    assert body["request_id"] == response.headers["request-id"]


async def test_pages_and_cursors(server: Server) -> None:
    """Cursors are exclusive, limits bound the page, and lifecycle filters."""
    assert await server.ids("limit=1000") == list(LISTED)
    assert await server.ids("limit=2") == list(LISTED[:2])
    assert await server.ids("limit=2&after_id=house-model") == list(LISTED[3:5])
    assert await server.ids(f"after_id={LISTED[-1]}") == []
    assert await server.ids("after_id=openai%2Fgpt-4o") == [LISTED[5]]
    assert await server.ids("before_id=house-model") == list(LISTED[:2])
    assert await server.ids("limit=1&before_id=house-model") == [LISTED[1]]
    assert await server.ids("lifecycle%5B%5D=active&lifecycle[]=retired") == list(LISTED)
    assert await server.ids("lifecycle[]=retired") == []
    assert await server.ids("beta=true") == list(LISTED)
    _, page, _ = await server.get("/v1/models?lifecycle[]=deprecated")
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, None, None)
    _, page, _ = await server.get("/v1/models?limit=1&before_id=house-model")
    assert page["has_more"] is True
    _, page, _ = await server.get("/v1/models?limit=6")
    assert page["has_more"] is False


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=1001", "limit=many", "limit=", "limit=1.5",
        "after_id=claude-sonnet-4-5&before_id=house-model", "after_id=nope", "before_id=",
        "lifecycle[]=dead", "refresh=perhaps",
    ],
)  # fmt: skip
async def test_bad_queries_are_refused(server: Server, query: str) -> None:
    """Each wrong parameter is 400 in the envelope, with the parameter's name."""
    status, body, _ = await server.get(f"/v1/models?{query}")
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert query[:5] in body["error"]["message"]


async def test_etag_and_304(demo: DemoGateway, server: Server) -> None:
    """An unchanged list is 304 without body; a changed one has another tag."""
    _, _, headers = await server.get("/v1/models")
    tag = headers["etag"]
    for offered in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        status, body, headers = await server.get("/v1/models", **{"If-None-Match": offered})
        assert (status, body, headers["etag"]) == (304, None, tag)
    demo.models["brand/new"] = DemoModel(id="brand/new")
    assert "brand/new" in await server.ids("refresh=true")
    status, _, headers = await server.get("/v1/models", **{"If-None-Match": tag})
    assert status == 200
    assert headers["etag"] != tag


async def test_refresh_on_demand(demo: DemoGateway, server: Server) -> None:
    """A model added a moment ago is listed by `refresh=true`, and by retrieving it."""
    assert await server.ids("") == list(LISTED)
    demo.models["brand/new"] = DemoModel(id="brand/new")
    assert await server.ids("") == list(LISTED)
    assert "brand/new" in await server.ids("refresh=true")
    assert "brand/new" in await server.ids("")


async def test_last_good_has_an_age(demo: DemoGateway, server: Server) -> None:
    """With the gateway gone the last good list is served and says how old it is."""
    _, _, headers = await server.get("/v1/models")
    assert "age" not in headers
    await demo.close()
    status, page, headers = await server.get("/v1/models?refresh=true")
    assert status == 200
    assert [item["id"] for item in page["data"]] == list(LISTED)
    assert int(headers["age"]) >= 0
    _, _, headers = await server.get("/v1/models")
    assert "age" in headers


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models?refresh=true", "/v1/models/x"])
async def test_never_had_a_list(make_server: MakeServer, path: str) -> None:
    """A gateway that never answered is 503 in the envelope with retry-after, never an empty 200."""
    server = await make_server("http://127.0.0.1:9")
    status, body, headers = await server.get(path)
    assert status == 503
    assert body["error"]["type"] == "api_error"
    assert "no list of models yet" in body["error"]["message"]
    assert "retry-after" in headers


async def test_key_is_wanted(server: Server) -> None:
    """The list is not public."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/v1/models") as answer:
        assert answer.status == 401


async def test_a_gateway_that_names_models_in_no_unicode(make_server: MakeServer) -> None:
    """Half a surrogate pair in one name, or a price beyond a float, hides that model and not the list."""
    gateway = FixedGateway()
    listed = r'{"data": [{"id": "a\ud800b", "input_cost_per_token": 1e999}, {"id": "fine"}]}'
    gateway.answers["/v1/models"] = Fixed(listed)
    await gateway.start()
    try:
        server = await make_server(gateway.url)
        assert await server.ids("limit=10") == ["fine"]
    finally:
        await gateway.close()
