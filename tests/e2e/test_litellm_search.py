"""`web_search` through a real LiteLLM proxy, whose search tool asks a SearXNG of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.demo_gateway import DemoGateway
from tests.e2e.litellm_config import openai, proxy_config
from tests.fakes.litellm_proxy import LiteLLMProxy
from tests.fakes.searxng import SearxNG, searxng
from tests.harness import http_client, make_settings, sidecar_for
from tests.raw_client import RawClient, plain

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

VENV = Path(__file__).parents[2] / ".venv-litellm"


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[SearxNG]:
    async with searxng() as running:
        yield running


@pytest.fixture(scope="module")
async def proxy(engine: SearxNG) -> AsyncIterator[LiteLLMProxy]:
    upstream = DemoGateway()
    await upstream.start()
    config = proxy_config([openai("openai/gpt-4o")], upstream=upstream.url)
    parameters = {"search_provider": "searxng", "api_base": engine.url}
    config["search_tools"] = [{"search_tool_name": "our search", "litellm_params": parameters}]
    async with LiteLLMProxy(config, venv=VENV) as running:
        yield running
    await upstream.close()


async def search(proxy: LiteLLMProxy, data_dir: Path, tool: str) -> dict[str, object]:
    """Run a turn that searches within docs.example.com; return the tool's result."""
    settings = make_settings(
        data_dir, f"{proxy.url}/v1", gateway={"api_key": proxy.key}, web={"search_tool": tool}
    )
    config = {"name": "web_search", "allowed_domains": ["docs.example.com"]}
    toolset = {"type": "agent_toolset_20260401", "configs": [config]}
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        raw = RawClient(http)
        session = await raw.new_session(tools=[toolset])
        turn = await raw.turn(session, '[[tool: web_search {"query": "sea otters"}]]')
    (use,) = plain(turn, "agent.tool_use")
    (result,) = plain(turn, "agent.tool_result")
    assert (use["name"], result["tool_use_id"]) == ("web_search", use["id"])
    return result


async def test_a_search_reaches_the_provider_and_keeps_to_the_domains(
    proxy: LiteLLMProxy, engine: SearxNG, tmp_path: Path
) -> None:
    """This provider knows no domain filter, so the page outside of the list is dropped here."""
    result = await search(proxy, tmp_path, "our search")
    expected = "1. About sea otters\nhttps://docs.example.com/guide\nWhat was found."
    assert (result["is_error"], result["output"]) == (False, expected)
    assert [query["q"] for query in engine.queries] == ["sea otters"]


async def test_a_tool_that_the_gateway_does_not_have(proxy: LiteLLMProxy, tmp_path: Path) -> None:
    """The agent reads which setting is wrong, and the turn goes on."""
    result = await search(proxy, tmp_path, "misspelt")
    assert result["is_error"] is True
    assert "'misspelt' (SIDECAR_WEB_SEARCH_TOOL)" in str(result["error"])
