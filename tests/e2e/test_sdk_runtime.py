"""The SDK's `opencode` runtime against the real sidecar, and its page served to the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.sdk import AsyncClient, AuthenticationError, Client, NotFoundError, UnavailableError
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, make_settings, sidecar_for

LISTED = [
    "bedrock/anthropic.claude-sonnet-4",
    "claude-sonnet-4-5",
    "house-model",
    "ollama/qwen3:8b",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
]


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    started = DemoGateway(key=GATEWAY_KEY)
    await started.start()
    yield started
    await started.close()


@pytest.fixture(scope="module")
async def server(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(tmp_path_factory.mktemp("data"), gateway.url)
    async with sidecar_for(settings, is_ready=False) as sidecar:
        await sidecar.catalogue.refresh()
        yield sidecar


def client_of(url: str, key: str = RUNTIME_KEY) -> AsyncClient:
    return AsyncClient(api_keys={"opencode": key}, base_urls={"opencode": url}, environ={})


async def test_the_sidecars_list(server: RunningSidecar) -> None:
    """Every chat model of the gateway, typed, with the limits that the catalogue merged."""
    async with client_of(server.url) as client:
        page = await client.models().list("opencode")
    by_id = {model.id: model for model in page}

    assert [model.id for model in page] == LISTED
    sonnet = by_id["claude-sonnet-4-5"]
    assert (sonnet.max_input_tokens, sonnet.max_tokens, sonnet.line) == (200_000, 64_000, "sonnet")
    assert sonnet.capabilities is not None
    assert sonnet.capabilities.image_input.supported is True
    assert by_id["house-model"].max_input_tokens is None


async def test_its_page_served_again_passes_the_official_sdk(server: RunningSidecar) -> None:
    """`model_dump(mode="json")`, served as it is, is read by the official SDK in strict mode."""
    async with client_of(server.url) as client:
        page = await client.models.list("opencode")

    async def models(_request: web.Request) -> web.Response:
        return web.json_response(page.model_dump(mode="json"))

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with (
        TestServer(app) as served,
        anthropic.AsyncAnthropic(
            api_key="any",
            base_url=str(served.make_url("/")),
            max_retries=0,
            _strict_response_validation=True,
        ) as official,
    ):
        read = [model async for model in await official.models.list()]

    assert [model.id for model in read] == LISTED
    assert read[1].max_input_tokens == 200_000
    assert read[1].capabilities is not None
    assert read[1].capabilities.thinking.supported is True


@pytest.mark.parametrize("model_id", ["openai/gpt-4o", "ollama/qwen3:8b", "dall-e-3"])
async def test_one_model_with_an_odd_id(server: RunningSidecar, model_id: str) -> None:
    """Slashes and colons arrive whole, and a hidden model may be named."""
    async with client_of(server.url) as client:
        assert (await client.models.retrieve("opencode", model_id)).id == model_id


async def test_a_model_added_at_the_gateway_is_found_at_once(
    gateway: DemoGateway, server: RunningSidecar
) -> None:
    """A model that has just been added is in a picker's next list, without any restart."""
    gateway.models["new/model:1"] = DemoModel(id="new/model:1")
    try:
        await server.catalogue.refresh()
        async with client_of(server.url) as client:
            page = await client.models.list("opencode")
    finally:
        del gateway.models["new/model:1"]
        await server.catalogue.refresh()

    assert "new/model:1" in [model.id for model in page]


async def test_errors_are_typed(server: RunningSidecar) -> None:
    """The sidecar's envelope becomes the SDK's error with its request id; one away is "unavailable"."""
    async with client_of(server.url) as client:
        with pytest.raises(NotFoundError):
            await client.models.retrieve("opencode", "no-such-model")
    async with client_of(server.url, key="wrong-key-of-the-tests") as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.models.list("opencode")
    async with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(UnavailableError):
            await client.models.list("opencode")

    assert (refused.value.request_id or "").startswith("req_")
    assert "wrong-key-of-the-tests" not in str(refused.value)


async def test_an_openai_shaped_gateway_and_the_sidecar_agree(
    gateway: DemoGateway, server: RunningSidecar
) -> None:
    """Asked directly, the gateway yields the same models as through the sidecar."""
    direct = AsyncClient(
        api_keys={"litellm": GATEWAY_KEY}, base_urls={"litellm": gateway.url}, environ={}
    )
    async with direct, client_of(server.url) as through:
        own = await direct.models.list("opencode")
        ours = await through.models.list("opencode")

    assert {model.id for model in own} == {model.id for model in ours}


def _listed_by_a_synchronous_program(url: str) -> list[str]:
    with Client(
        api_keys={"opencode": RUNTIME_KEY}, base_urls={"opencode": url}, environ={}
    ) as client:
        return [model.id for model in client.models.list(runtime="opencode")]


async def test_the_synchronous_client_sees_the_same(server: RunningSidecar) -> None:
    """A program without an event loop gets the same list."""
    assert await asyncio.to_thread(_listed_by_a_synchronous_program, server.url) == LISTED
