"""Odd models as a real LiteLLM lists them: each costs itself, and those that can be called are called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.e2e.litellm_config import openai, proxy_config
from tests.fakes.litellm_proxy import LiteLLMProxy
from tests.harness import http_client, make_settings, sidecar_for, text_of
from tests.raw_client import RawClient

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

VENV = Path(__file__).parents[2] / ".venv-litellm"
TARGET = "gpt-4o"
DEPLOYMENTS = [
    openai("plain", TARGET, max_input_tokens=100_000),
    openai("constructor", TARGET),
    openai("__proto__", TARGET),
    openai("endless", TARGET, max_input_tokens=2**63 - 1, max_output_tokens=2**63 - 1),
    openai("costly", TARGET, input_cost_per_token=1e300),
    openai("x" * 1500, TARGET),
    openai("all-proxy-models", TARGET),
    openai("public-of-a-team", TARGET, team_public_model_name="public", max_input_tokens=1234),
]
CALLABLE = ["plain", "constructor", "__proto__", "endless", "costly"]


@pytest.fixture(scope="module")
async def odd_sidecar(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningSidecar]:
    upstream = DemoGateway()
    await upstream.start()
    upstream.models[TARGET] = upstream.models["openai/gpt-4o"].model_copy(update={"id": TARGET})
    async with LiteLLMProxy(proxy_config(DEPLOYMENTS, upstream=upstream.url), venv=VENV) as proxy:
        settings = make_settings(
            tmp_path_factory.mktemp("odd-litellm"), proxy.url, gateway={"api_key": proxy.key}
        )
        async with sidecar_for(settings) as sidecar:
            await sidecar.catalogue.refresh()
            yield sidecar
    await upstream.close()


async def test_the_catalogue_of_odd_models(odd_sidecar: RunningSidecar) -> None:
    """What LiteLLM says of them is within bounds or unknown; what is no model is hidden with a reason."""
    snapshot = odd_sidecar.catalogue.snapshot
    assert snapshot is not None
    assert set(CALLABLE) <= set(snapshot.listed)
    assert snapshot.entries["plain"].max_input_tokens == 100_000
    assert snapshot.entries["endless"].max_input_tokens is None
    assert snapshot.entries["costly"].input_cost_per_token is None
    assert "placeholder" in (snapshot.entries["all-proxy-models"].hidden_because or "")
    assert "longer" in (snapshot.entries["x" * 1500].hidden_because or "")
    named = {skip.item for skips in snapshot.skipped.values() for skip in skips}
    assert "endless" in named


@pytest.mark.parametrize("model", CALLABLE)
async def test_odd_models_answer_through_litellm(odd_sidecar: RunningSidecar, model: str) -> None:
    """LiteLLM gets its own id, whatever id opencode had to be given."""
    async with http_client(odd_sidecar.url) as http:
        raw = RawClient(http)
        session = await raw.new_session(model=model)
        assert text_of(await raw.turn(session, "[[say: through]]")) == "through"
