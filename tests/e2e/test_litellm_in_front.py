"""The recipe "LiteLLM in front" of docs/deploy.md: one base URL for models, messages and agents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from tests.e2e.litellm_config import anthropic as claude_deployment
from tests.e2e.litellm_config import openai as openai_deployment
from tests.e2e.litellm_config import proxy_config
from tests.e2e.test_litellm import VENV
from tests.e2e.test_sdk_turns import PLAIN_TURN, open_session, run_turn
from tests.fakes.litellm_proxy import LiteLLMProxy
from tests.harness import RUNTIME_KEY, make_settings, sidecar_for, text_of, types_of, user_message
from tests.waiting import patience

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

PATHS = ("/v1/agents", "/v1/environments", "/v1/sessions", "/v1/vaults")
DEPLOYMENTS = [
    claude_deployment("claude-sonnet-4-5", "claude-sonnet-4-5", max_input_tokens=200_000),
    openai_deployment("openai/gpt-4o", "gpt-4o"),
]


def pass_through(sidecar_url: str) -> list[dict[str, Any]]:
    """Return `pass_through_endpoints` as docs/deploy.md has them."""
    return [
        {
            "path": path,
            "target": f"{sidecar_url}{path}",
            "include_subpath": True,
            "auth": True,
            "forward_headers": True,
            "headers": {"x-api-key": RUNTIME_KEY, "authorization": f"Bearer {RUNTIME_KEY}"},
            "timeout": 86_400,
        }
        for path in PATHS
    ]


@pytest.fixture(scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiteLLMProxy]:
    """LiteLLM with the sidecar behind it, which has LiteLLM as its gateway."""
    upstream = DemoGateway()
    upstream.models["gpt-4o"] = DemoModel(id="gpt-4o")
    await upstream.start()
    config = proxy_config(DEPLOYMENTS, upstream=upstream.url)
    async with LiteLLMProxy(config, venv=VENV) as proxy:
        settings = make_settings(
            tmp_path_factory.mktemp("front"), f"{proxy.url}/v1", gateway={"api_key": proxy.key}
        )
        async with sidecar_for(settings) as sidecar:
            config["general_settings"]["pass_through_endpoints"] = pass_through(sidecar.url)
            await proxy.restart(config)
            yield proxy
    await upstream.close()


@pytest.fixture
async def sdk(front: LiteLLMProxy) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The official SDK, strict, with nothing but LiteLLM's address and key."""
    async with anthropic.AsyncAnthropic(
        base_url=front.url,
        api_key=front.key,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


async def test_models_messages_and_agents_have_one_address(sdk: anthropic.AsyncAnthropic) -> None:
    """A message of a model, and a whole turn of an agent on it, with one client."""
    message = await sdk.messages.create(
        model="claude-sonnet-4-5",
        max_tokens=50,
        messages=[{"role": "user", "content": "[[say: from a model]]"}],
    )
    assert message.content[0].text == "from a model"  # type: ignore[union-attr]

    _, session = await open_session(sdk, "openai/gpt-4o")
    _, seen = await run_turn(sdk, session.id, "[[say: from an agent]]")
    assert types_of(seen) == PLAIN_TURN
    assert text_of(seen) == "from an agent"

    assert [each.id async for each in sdk.beta.sessions.list(limit=1)] == [session.id]
    assert (await sdk.beta.sessions.archive(session.id)).status == "terminated"
    await sdk.beta.sessions.delete(session.id)


async def test_streams_are_live(sdk: anthropic.AsyncAnthropic) -> None:
    """What is written shows while the model hangs; an interrupt on another request ends the turn."""
    _, session = await open_session(sdk, "openai/gpt-4o")
    async with (
        patience(),
        await sdk.beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as stream,
    ):
        await sdk.beta.sessions.events.send(
            session.id, events=[user_message("[[say: still here]] [[hang]]")]
        )
        shown = ""
        async for event in stream:
            if event.type == "event_delta":
                shown += event.delta.content.text
                if shown == "still here":
                    await sdk.beta.sessions.events.send(
                        session.id, events=[{"type": "user.interrupt"}]
                    )
            if event.type == "session.status_idle":
                break
    assert shown == "still here"


async def test_errors_arrive_as_they_are(sdk: anthropic.AsyncAnthropic) -> None:
    """A 404 of the sidecar has its status and its sentence."""
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        await sdk.beta.sessions.retrieve("sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV")


async def test_a_wrong_key_stops_at_litellm(front: LiteLLMProxy) -> None:
    """The pass-through asks for LiteLLM's key; the sidecar's is in its configuration only."""
    async with anthropic.AsyncAnthropic(
        base_url=front.url, api_key="sk-wrong", max_retries=0
    ) as sdk:
        with pytest.raises(anthropic.APIStatusError) as refused:
            await sdk.beta.sessions.retrieve("sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert refused.value.status_code in {400, 401}  # 400: it has no database to look the key up in
    assert "does not exist" not in str(refused.value)
