"""Each runtime over real sockets, against a fake shaped like the vendor's documented answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.sdk import (
    AsyncClient,
    AuthenticationError,
    BadAnswerError,
    CursorRuntime,
    NotFoundError,
    RequestPolicy,
)
from sidecar.sdk.models import UNKNOWN_DATE
from tests.fakes.anthropic_api import AnthropicApi, Fault, VendorFake, anthropic_model
from tests.fakes.cursor_api import V1_OBJECTS, CursorApi
from tests.fakes.gemini_api import GeminiApi

ONCE = RequestPolicy(max_retries=0)

Serve = Callable[[VendorFake], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve a fake on a real socket and return its base URL."""
    async with AsyncExitStack() as stack:

        async def start(fake: VendorFake) -> str:
            server = TestServer(fake.app())
            await stack.enter_async_context(server)
            return str(server.make_url("/")).rstrip("/")

        yield start


def client_of(name: str, url: str, key: str | None, **more: Any) -> AsyncClient:
    keys = {} if key is None else {name: key}
    more.setdefault("policy", ONCE)
    return AsyncClient(api_keys=keys, base_urls={name: url}, environ={}, **more)


async def test_anthropic_walks_all_pages(serve: Serve) -> None:
    """2 500 models come as one page, in order, from three requests of 1 000 each."""
    fake = AnthropicApi(models=[anthropic_model(f"m-{n}") for n in range(2500)])
    async with client_of("anthropic", await serve(fake), fake.key) as client:
        page = await client.models().list("anthropic")

    assert [m.id for m in page] == [f"m-{n}" for n in range(2500)]
    assert (page.first_id, page.last_id, page.has_more) == ("m-0", "m-2499", False)
    assert [dict(r.query) for r in fake.requests] == [
        {"limit": "1000"},
        {"limit": "1000", "after_id": "m-999"},
        {"limit": "1000", "after_id": "m-1999"},
    ]


async def test_anthropic_items_are_typed(serve: Serve) -> None:
    """Capabilities, limits and dates are attributes, and `raw` is what came."""
    fake = AnthropicApi(models=[anthropic_model("claude-x")])
    async with client_of("anthropic", await serve(fake), fake.key) as client:
        (model,) = await client.models.list(runtime="anthropic")

    assert model.capabilities is not None
    assert model.capabilities.effort.max.supported is True
    assert model.created_at.year == 2026
    assert (model.max_input_tokens, model.line, model.runtime) == (200_000, "opus", "anthropic")
    assert model.raw == anthropic_model("claude-x")


async def test_a_repeated_cursor_ends_the_walk(serve: Serve) -> None:
    """A server that serves its second page again and again is left after noticing the repetition."""
    models = [anthropic_model(f"m-{n}") for n in range(4)]
    fake = AnthropicApi(models=models, largest_limit=2, repeats_cursor=True)
    async with client_of("anthropic", await serve(fake), fake.key) as client:
        page = await client.models.list("anthropic")

    assert [m.id for m in page] == ["m-0", "m-1", "m-2", "m-3"]
    assert page.has_more is False
    assert len(fake.requests) == 3


async def test_a_list_beyond_the_page_bound_says_so(serve: Serve) -> None:
    """The bound cuts the list and `has_more` stays true."""
    fake = AnthropicApi(models=[anthropic_model(f"m-{n}") for n in range(9)], largest_limit=2)
    policy = RequestPolicy(max_retries=0, max_pages=3)
    async with client_of("anthropic", await serve(fake), fake.key, policy=policy) as client:
        page = await client.models.list("anthropic")

    assert (len(page), page.has_more, page.last_id) == (6, True, "m-5")


@pytest.mark.parametrize("model_id", ["claude-x", "openai/gpt-4o", "a:b@c", "50%/ü b?#+"])
async def test_anthropic_retrieve_keeps_odd_ids_whole(serve: Serve, model_id: str) -> None:
    """Slashes, colons, percent signs and blanks travel in one path segment."""
    fake = AnthropicApi(models=[anthropic_model(model_id)])
    async with client_of("anthropic", await serve(fake), fake.key) as client:
        model = await client.models.retrieve("anthropic", model_id)

    assert model.id == model_id


@pytest.mark.parametrize("model_id", ["nope", "", ".", ".."])
async def test_anthropic_retrieve_of_an_unknown_id(serve: Serve, model_id: str) -> None:
    """An id that is not there, or cannot be one, is a NotFoundError."""
    fake = AnthropicApi(models=[anthropic_model("m")])
    async with client_of("anthropic", await serve(fake), fake.key) as client:
        with pytest.raises(NotFoundError):
            await client.models.retrieve("anthropic", model_id)


async def test_cursor_v1_objects(serve: Serve) -> None:
    """Objects give id and display name; parameters, variants and aliases stay in `raw`."""
    fake = CursorApi()
    async with client_of("cursor", await serve(fake), fake.key) as client:
        page = await client.models.list("cursor")

    assert [(m.id, m.display_name) for m in page] == [
        ("claude-4.5-opus-high-thinking", "Claude 4.5 Opus (thinking)"),
        ("gpt-5.2", "GPT-5.2"),
    ]
    assert [m.raw for m in page] == V1_OBJECTS
    assert page.data[0].created_at == UNKNOWN_DATE
    assert page.data[0].lifecycle == "active"


async def test_cursor_v1_strings(serve: Serve) -> None:
    """Early v1 lists of plain strings give models whose name is their id, mixed lists too."""
    fake = CursorApi(items=["gpt-5.2", {"id": "opus", "displayName": None}, 7, {"x": 1}])
    async with client_of("cursor", await serve(fake), fake.key) as client:
        page = await client.models.list("cursor")

    assert [(m.id, m.display_name, m.raw) for m in page] == [
        ("gpt-5.2", "gpt-5.2", "gpt-5.2"),
        ("opus", "opus", {"id": "opus", "displayName": None}),
    ]


async def test_cursor_falls_back_to_v0(serve: Serve) -> None:
    """Where v1 does not exist, v0 is asked with the same key."""
    fake = CursorApi(items=None, v0_models=["claude-4", "gpt-5"])
    async with client_of("cursor", await serve(fake), fake.key) as client:
        page = await client.models.list("cursor")

    assert [m.id for m in page] == ["claude-4", "gpt-5"]
    assert [r.path for r in fake.requests] == ["/v1/models", "/v0/models"]


async def test_cursor_does_not_fall_back_for_a_refused_key(serve: Serve) -> None:
    """A 401 is about the key, not about the version of the API."""
    fake = CursorApi(v0_models=["old"])
    async with client_of("cursor", await serve(fake), "cur_wrong-key") as client:
        with pytest.raises(AuthenticationError, match="Invalid User API Key") as caught:
            await client.models.list("cursor")

    assert len(fake.requests) == 1
    assert "cur_wrong-key" not in str(caught.value)


async def test_cursor_follows_a_next_cursor(serve: Serve) -> None:
    """Paging is undocumented; if it comes, it is walked."""
    fake = CursorApi(items=[f"m-{n}" for n in range(5)], page_size=2)
    async with client_of("cursor", await serve(fake), fake.key) as client:
        page = await client.models.list("cursor")

    assert [m.id for m in page] == [f"m-{n}" for n in range(5)]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_cursor_s_key_as_basic_or_bearer(serve: Serve, auth: Any) -> None:
    """Both ways work; the default is Basic."""
    fake = CursorApi(schemes=frozenset({auth}))
    runtimes = [] if auth == "basic" else [CursorRuntime(auth=auth)]
    async with client_of("cursor", await serve(fake), fake.key, runtimes=runtimes) as client:
        assert len(await client.models.list("cursor")) == 2


async def test_cursor_retrieve_by_id_and_by_alias(serve: Serve) -> None:
    """Cursor's own aliases name the model that lists them."""
    fake = CursorApi()
    async with client_of("cursor", await serve(fake), fake.key) as client:
        by_id = await client.models.retrieve("cursor", "gpt-5.2")
        by_alias = await client.models.retrieve("cursor", "opus")

    assert (by_id.id, by_alias.id) == ("gpt-5.2", "claude-4.5-opus-high-thinking")


async def test_gemini_walks_pages_and_leaves_out_embeddings(serve: Serve) -> None:
    """Token pages are walked; ids lose `models/`; limits become Anthropic's names."""
    fake = GeminiApi(page_size=1)
    async with client_of("gemini", await serve(fake), fake.key) as client:
        page = await client.models.list("gemini")

    assert [m.id for m in page] == ["gemini-2.5-pro", "gemini-flash-latest"]
    assert (page.data[0].max_input_tokens, page.data[0].max_tokens) == (1_048_576, 65_536)
    assert page.data[1].display_name == "gemini-flash-latest"
    assert len(fake.requests) == 3
    assert all("key" not in r.query for r in fake.requests)


async def test_gemini_s_400_for_a_wrong_key_is_an_authentication_error(serve: Serve) -> None:
    """The reason in the body counts, not the status."""
    async with client_of("gemini", await serve(GeminiApi()), "AIza-wrong") as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.models.list("gemini")

    assert caught.value.status == 400


class GatewayApi(VendorFake):
    """LiteLLM's OpenAI list: modes, wildcards, its constant `created`, 404 for ids with a slash."""

    def __init__(self, data: list[Any]) -> None:
        super().__init__()
        self.data = data

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self._list)

    async def _list(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != "Bearer sk-right":
            error = {"type": "no_db_connection", "message": "No connected db."}
            return web.json_response({"error": error}, status=400)
        return web.json_response({"object": "list", "data": self.data})


def gateway_model(model_id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": model_id,
        "object": "model",
        "created": 1677610602,
        "owned_by": "openai",
        **more,
    }


async def test_litellm_directly_lists_what_can_converse(serve: Serve) -> None:
    """Embedding and image models and wildcards are left out; a missing mode counts as chat."""
    fake = GatewayApi(
        [
            gateway_model("openai/gpt-4o", mode="chat", max_input_tokens=128000.0),
            gateway_model("o3-pro", mode="responses", max_output_tokens=100_000),
            gateway_model("local", mode=None),
            gateway_model("text-embedding-3", mode="embedding"),
            gateway_model("dall-e", mode="image_generation"),
            gateway_model("bedrock/*", mode="chat"),
        ]
    )
    async with client_of("litellm", f"{await serve(fake)}/v1", "sk-right") as client:
        page = await client.models.list("opencode")

    assert [m.id for m in page] == ["openai/gpt-4o", "o3-pro", "local"]
    assert page.data[0].max_input_tokens == 128_000
    assert page.data[1].max_tokens == 100_000
    assert page.data[0].created_at == UNKNOWN_DATE
    assert "anthropic-version" not in fake.requests[0].headers


async def test_litellm_retrieve_finds_hidden_models_and_slashes(serve: Serve) -> None:
    """What the list hides can still be named; the route that fails for slashes is not used."""
    fake = GatewayApi([gateway_model("openai/embed", mode="embedding"), gateway_model("a/b")])
    async with client_of("litellm", await serve(fake), "sk-right") as client:
        assert (await client.models.retrieve("opencode", "openai/embed")).id == "openai/embed"
        with pytest.raises(NotFoundError, match="openai/embed"):
            await client.models.retrieve("opencode", "openai/embedd")


async def test_litellm_s_400_for_a_wrong_key_is_an_authentication_error(serve: Serve) -> None:
    """Without its database LiteLLM says 400 `no_db_connection` to a wrong key."""
    async with client_of("litellm", await serve(GatewayApi([])), "sk-wrong") as client:
        with pytest.raises(AuthenticationError):
            await client.models.list("opencode")


async def test_the_opencode_runtime_reads_an_anthropic_page_too(serve: Serve) -> None:
    """A sidecar answers an Anthropic page that also carries OpenAI's fields."""
    item = anthropic_model("openai/gpt-4o", object="model", created=0, owned_by="openai")
    fake = AnthropicApi(models=[item])
    async with client_of("opencode", await serve(fake), fake.key) as client:
        page = await client.models.list("opencode")
        model = await client.models.retrieve("opencode", "openai/gpt-4o")

    assert page.data == (model,)
    assert model.capabilities is not None
    assert "limit" not in fake.requests[0].query


async def test_a_node_peer_s_failure_is_told(serve: Serve) -> None:
    """A server that answers 200 with something else is a bad answer, not an empty list."""
    fake = AnthropicApi()
    fake.faults.append(Fault(200, '{"error": "fetch failed"}'))
    async with client_of("opencode", await serve(fake), None) as client:
        with pytest.raises(BadAnswerError, match="no 'data' array"):
            await client.models.list("opencode")


async def test_ten_thousand_models(serve: Serve) -> None:
    """10 000 models come in one answer, complete and in order."""
    fake = CursorApi(items=[{"id": f"m-{n}", "displayName": f"M {n}"} for n in range(10_000)])
    async with client_of("cursor", await serve(fake), fake.key) as client:
        page = await client.models.list("cursor")

    assert len(page) == 10_000
    assert (page.first_id, page.last_id) == ("m-0", "m-9999")


async def test_an_empty_list(serve: Serve) -> None:
    """No models is an empty page for every runtime."""
    for name, fake in (
        ("anthropic", AnthropicApi()),
        ("cursor", CursorApi(items=[])),
        ("gemini", GeminiApi(models=[])),
    ):
        async with client_of(name, await serve(fake), fake.key) as client:
            page = await client.models.list(name)
        assert (page.data, page.first_id, page.has_more) == ((), None, False)
