"""The main job through a real LiteLLM proxy, whose deployments answer from our scripted upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from tests.e2e.litellm_config import anthropic as claude_deployment
from tests.e2e.litellm_config import openai as openai_deployment
from tests.e2e.litellm_config import proxy_config
from tests.e2e.test_sdk_turns import PLAIN_TURN, TOOL_TURN, open_session, run_turn
from tests.fakes.litellm_proxy import LiteLLMProxy
from tests.harness import RUNTIME_KEY, make_settings, sidecar_for, text_of, types_of

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

VENV = Path(__file__).parents[2] / ".venv-litellm"
DEPLOYMENTS = [
    claude_deployment("claude-sonnet-4-5", "claude-sonnet-4-5", max_input_tokens=200_000),
    openai_deployment("openai/gpt-4o", "gpt-4o", max_input_tokens=128_000, supports_vision=True),
    openai_deployment("team-b/claude-over-openai", "claude-over-openai"),
    openai_deployment("text-embedding-3-small", "text-embedding-3-small", mode="embedding"),
]
CHAT_MODELS = {"claude-sonnet-4-5", "openai/gpt-4o", "team-b/claude-over-openai"}


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[DemoGateway]:
    demo = DemoGateway()
    for name in ("gpt-4o", "claude-over-openai", "text-embedding-3-small"):
        demo.models[name] = DemoModel(id=name)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture(scope="module")
async def proxy(upstream: DemoGateway) -> AsyncIterator[LiteLLMProxy]:
    async with LiteLLMProxy(proxy_config(DEPLOYMENTS, upstream=upstream.url), venv=VENV) as running:
        yield running


@pytest.fixture(scope="module")
async def litellm_sidecar(
    proxy: LiteLLMProxy, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("litellm"),
        f"{proxy.url}/v1",
        gateway={"api_key": proxy.key, "miss_refresh_seconds": 0.1},
    )
    async with sidecar_for(settings) as sidecar:
        yield sidecar


@pytest.fixture(params=[False, True], ids=["normal", "strict"])
async def sdk(
    request: pytest.FixtureRequest, litellm_sidecar: RunningSidecar
) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=litellm_sidecar.url,
        api_key=RUNTIME_KEY,
        max_retries=0,
        _strict_response_validation=request.param,
    ) as client:
        yield client


async def test_the_list_is_litellms_chat_models(sdk: anthropic.AsyncAnthropic) -> None:
    """Limits come from LiteLLM's richer sources; the embedding model is not listed."""
    models = {model.id: model async for model in sdk.models.list()}

    assert set(models) == CHAT_MODELS
    assert models["claude-sonnet-4-5"].max_input_tokens == 200_000


@pytest.mark.parametrize("typed", [*sorted(CHAT_MODELS), "litellm/openai/gpt-4o"])
async def test_any_listed_model_answers_through_litellm(
    sdk: anthropic.AsyncAnthropic, typed: str
) -> None:
    """Messages and chat completions wires, names with and without slashes."""
    _, session = await open_session(sdk, typed)
    _, seen = await run_turn(sdk, session.id, "[[say: through the gateway]]")

    assert types_of(seen) == PLAIN_TURN
    assert text_of(seen) == "through the gateway"


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "openai/gpt-4o"])
async def test_a_tool_turn_goes_through_litellm(sdk: anthropic.AsyncAnthropic, model: str) -> None:
    """Call, result, text, one idle; usage is counted."""
    _, session = await open_session(sdk, model)
    _, seen = await run_turn(sdk, session.id, "[[bash: echo from-the-shell]]")
    shown = await sdk.beta.sessions.retrieve(session.id)

    assert types_of(seen) == TOOL_TURN
    assert "from-the-shell" in text_of(seen)
    assert shown.status == "idle"
    assert shown.usage.output_tokens


async def test_a_gateway_error_is_an_honest_session_error(
    litellm_sidecar: RunningSidecar, sdk: anthropic.AsyncAnthropic
) -> None:
    """LiteLLM's 401 of a deployment ends the turn with a typed error, and the session stays usable."""
    _, session = await open_session(sdk, "openai/gpt-4o")
    _, seen = await run_turn(sdk, session.id, "[[error: 401]]")
    error = next(event for event in seen if event.type == "session.error")

    assert error.error.type == "model_request_failed_error"
    assert error.error.retry_status.type == "exhausted"
    assert seen[-1].stop_reason.type == "retries_exhausted"
    _, again = await run_turn(sdk, session.id, "[[say: fine]]")
    assert text_of(again) == "fine"


async def test_a_model_added_to_litellm_is_usable_without_a_restart_of_the_sidecar(
    proxy: LiteLLMProxy, upstream: DemoGateway, litellm_sidecar: RunningSidecar
) -> None:
    """The proxy is restarted with one model more; the sidecar and its child are not."""
    boot = litellm_sidecar.supervisor.boot
    added = openai_deployment("fresh/model-of-today", "gpt-4o")
    await proxy.restart(proxy_config([*DEPLOYMENTS, added], upstream=upstream.url))
    async with anthropic.AsyncAnthropic(
        base_url=litellm_sidecar.url, api_key=RUNTIME_KEY, _strict_response_validation=True
    ) as sdk:
        _, session = await open_session(sdk, "fresh/model-of-today")
        _, seen = await run_turn(sdk, session.id, "[[say: new here]]")
        listed = [model.id async for model in sdk.models.list()]

    assert text_of(seen) == "new here"
    assert "fresh/model-of-today" in listed
    assert litellm_sidecar.supervisor.boot == boot
