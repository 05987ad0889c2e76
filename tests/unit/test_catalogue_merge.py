"""The merge of LiteLLM's sources, against answers recorded from LiteLLM 1.106.2."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.gateway import merge
from sidecar.gateway.merge import CatalogueEntry
from sidecar.gateway.rules import Override, Rules
from sidecar.wire.litellm import Deployment, ListedModel, ModelGroup, read_items

RECORDINGS = Path(__file__).parents[1] / "recordings" / "litellm"


def recorded(name: str) -> Any:
    return json.loads((RECORDINGS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def layers() -> dict[str, dict[str, Any]]:
    listed = read_items(ListedModel, recorded("v1_models"))
    groups = read_items(ModelGroup, recorded("model_group_info"))
    deployments = read_items(Deployment, recorded("v1_model_info"))
    assert listed
    assert groups
    assert deployments
    facts = {
        "models": merge.facts_of_list(listed.items),
        "model_group_info": merge.facts_of_groups(groups.items),
        "model_info": merge.facts_of_deployments(deployments.items),
    }
    return {m.id: {s: f[m.id] for s, f in facts.items() if m.id in f} for m in listed.items}


@pytest.fixture(scope="module")
def entries(layers: dict[str, dict[str, Any]]) -> dict[str, CatalogueEntry]:
    return merge.merge(layers, Rules())


def one(model_id: str, rules: Rules | None = None, **sources: dict[str, Any]) -> CatalogueEntry:
    return merge.merge({model_id: {"models": {}, **sources}}, rules or Rules())[model_id]


def test_real_claude(entries: dict[str, CatalogueEntry]) -> None:
    """A model LiteLLM knows has its limits, abilities, costs and the Messages wire."""
    claude = entries["claude-sonnet-4-5"]
    assert (claude.max_input_tokens, claude.max_output_tokens) == (200_000, 64_000)
    assert claude.input_modalities == ("text", "image", "pdf")
    assert claude.supports_tools is True
    assert claude.supports_reasoning is True
    assert claude.supports_structured_outputs is True
    assert claude.input_cost_per_token == 3e-06
    assert claude.cache_read_cost_per_token == 3e-07
    assert claude.cache_write_cost_per_token == 3.75e-06
    assert claude.wire == "messages"
    assert claude.created_at == merge.EPOCH
    assert claude.sources["max_input_tokens"] == "model_info"


def test_real_custom_deployment(entries: dict[str, CatalogueEntry]) -> None:
    """For a deployment LiteLLM does not know, its blanket `false` is read as unknown."""
    custom = entries["custom-thing"]
    assert custom.listed
    assert custom.supports_tools is None
    assert custom.supports_reasoning is None
    assert custom.max_input_tokens is None
    assert custom.wire == "chat"


def test_real_listing(entries: dict[str, CatalogueEntry]) -> None:
    """Only chat models are listed; the others are kept, with the reason."""
    assert merge.listed_order(entries.values()) == (
        "bedrock/anthropic.claude-sonnet-4",
        "claude-sonnet-4-5",
        "custom-thing",
        "gpt-5",
        "groq/openai/gpt-oss-120b",
        "openai/gpt-4o",
    )
    hidden = {e.id: e.hidden_because for e in entries.values() if not e.listed}
    assert hidden == {
        "text-embedding-3-small": "mode embedding",
        "dall-e-3": "no mode, and its name says dall-e",
        "groq/whisper-large-v3-turbo": "mode audio_transcription",
    }


def test_precedence() -> None:
    """Per field: override, then deployment, then group, then list."""
    sources = {
        "models": {"max_input_tokens": 1, "max_output_tokens": 1, "mode": "chat"},
        "model_group_info": {"max_input_tokens": 2, "max_output_tokens": 2},
        "model_info": {"max_input_tokens": 3},
    }
    entry = one("m", **sources)
    assert (entry.max_input_tokens, entry.max_output_tokens, entry.mode) == (3, 2, "chat")
    rules = Rules(overrides={"m": Override(max_input_tokens=4, wire="messages")})
    entry = one("m", rules, **sources)
    assert (entry.max_input_tokens, entry.wire) == (4, "messages")
    assert entry.sources["max_input_tokens"] == "override"


def test_deployments_of_one_name_promise_what_all_can() -> None:
    """Behind a load-balanced name the smaller limit and the common abilities count."""
    body = {
        "data": [
            {
                "model_name": "m",
                "model_info": {
                    "max_input_tokens": 9,
                    "supports_vision": True,
                    "supports_reasoning": True,
                },
            },
            {
                "model_name": "m",
                "model_info": {"max_input_tokens": 5.0, "supports_vision": False, "max_tokens": 7},
            },
        ]
    }
    deployments = read_items(Deployment, body)
    assert deployments is not None
    entry = one("m", model_info=merge.facts_of_deployments(deployments.items)["m"])
    assert (entry.max_input_tokens, entry.max_output_tokens) == (5, 7)
    assert entry.input_modalities == ("text",)
    assert entry.supports_reasoning is None


@pytest.mark.parametrize(
    "model_id",
    [
        "text-embedding-ada-002", "cohere/embed-v4", "bge-m3", "openai/tts-1", "whisper-1",
        "dall-e-3", "gpt-image-1", "gemini-2.5-flash-image", "imagen-4", "rerank-english-v3",
        "omni-moderation-latest", "gpt-4o-realtime-preview", "gpt-4o-transcribe", "sora-2",
        "black-forest-labs/flux-1", "openai/*", "*",
    ],
)  # fmt: skip
def test_names_that_do_not_chat(model_id: str) -> None:
    """Without a mode the name decides: wildcards, embeddings, speech, images, rerankers are hidden."""
    assert not one(model_id).listed


@pytest.mark.parametrize(
    "model_id",
    ["gpt-4o", "imagination-70b", "ollama/qwen3:8b", "fluxion", "my-retts", "e5x", "house-model"],
)
def test_names_that_chat(model_id: str) -> None:
    """Words are matched whole: a name that only looks similar stays listed."""
    assert one(model_id).listed


def test_mode_wins_over_the_name() -> None:
    """A chat model with an unlucky name is listed, an embedding model with a plain one is not."""
    assert one("whisper-chat", models={"mode": "chat"}).listed
    assert one("codex", models={"mode": "responses"}).listed
    assert not one("plain", models={"mode": "embedding"}).listed


def test_globs_and_forced_listing() -> None:
    """Include and exclude are globs over ids; an override of `listed` wins over every rule."""
    rules = Rules(include=("openai/*", "claude*"), exclude=("*mini",))
    listed = {i: one(i, rules).listed for i in ("openai/gpt-4o", "openai/o4-mini", "ollama/x")}
    assert listed == {"openai/gpt-4o": True, "openai/o4-mini": False, "ollama/x": False}
    forced = Rules(overrides={"tts-1": Override(listed=True), "gpt": Override(listed=False)})
    assert one("tts-1", forced).listed
    assert one("gpt", forced).hidden_because == "hidden by SIDECAR_GATEWAY_OVERRIDES"


def test_newest_first_then_by_id() -> None:
    """The order is stable: created_at descending, then the id."""
    created = {
        "b": 1_750_000_000,
        "a": 1_750_000_000,
        "z": 1_760_000_000,
        "old": 0,
        "lit": 1677610602,
    }
    body = {"data": [{"id": i, "created": c} for i, c in created.items()]}
    listed = read_items(ListedModel, body)
    assert listed is not None
    facts = merge.facts_of_list(listed.items)
    entries = merge.merge({i: {"models": f} for i, f in facts.items()}, Rules())
    assert merge.listed_order(entries.values()) == ("z", "a", "b", "lit", "old")
    assert entries["z"].created_at == "2025-10-09T08:53:20Z"
    assert entries["lit"].created_at == merge.EPOCH


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"data": [{"id": "a"}, {"id": 7}, None, {"name": "x"}, "b"]}, ["a", "b"]),
        ({"models": [{"id": "a", "max_input_tokens": "soon", "mode": 3}]}, ["a"]),
        ({"data": []}, []),
        ({"data": "none"}, None),
        (["a"], ["a"]),
        ("text", None),
    ],
)
def test_odd_lists(body: Any, ids: list[str] | None) -> None:
    """An odd item or field hides only itself; what is not a list is distinguished from an empty one."""
    listing = read_items(ListedModel, body)
    assert ids == (listing if listing is None else [item.id for item in listing.items])


@pytest.mark.parametrize(
    "value",
    [-1, 0, float("nan"), float("inf"), True, "many", [], None, 10**320, "9" * 400, 2**63 - 1],
)
def test_senseless_limits_are_unknown(value: Any) -> None:
    """A limit that is no positive number is no limit, not a crash and not zero."""
    listing = read_items(ListedModel, {"data": [{"id": "a", "max_input_tokens": value}]})
    assert listing is not None
    assert listing.items[0].max_input_tokens is None


def test_anthropic_page_is_understood() -> None:
    """A gateway that answers Anthropic's page gives limits and dates from it."""
    item = {
        "type": "model", "id": "m", "display_name": "M", "created_at": "2025-09-29T00:00:00Z",
        "max_input_tokens": 10, "max_tokens": 5,
    }  # fmt: skip
    listed = read_items(ListedModel, {"data": [item]})
    assert listed is not None
    entry = one("m", models=merge.facts_of_list(listed.items)["m"])
    assert (entry.display_name, entry.created_at) == ("M", "2025-09-29T00:00:00Z")
    assert (entry.max_input_tokens, entry.max_output_tokens) == (10, 5)


@pytest.mark.parametrize(
    ("target", "wire"),
    [
        ("anthropic/claude-sonnet-4-5", "messages"),
        ("bedrock/anthropic.claude-sonnet-4", "messages"),
        ("openai/claude-sonnet-4-5", "chat"),
        ("hosted_vllm/claude-sonnet-4-5", "chat"),
        (None, "messages"),
    ],
)
def test_claude_speaks_messages_unless_its_deployment_would_have_to_translate(
    target: str | None, wire: str
) -> None:
    """The wire follows the deployment behind the name, where the gateway names it."""
    deployment = {"model_name": "claude-x", "litellm_params": {"model": target}, "model_info": {}}
    layers = {
        "models": {},
        "model_info": merge.facts_of_deployments([Deployment.model_validate(deployment)])[
            "claude-x"
        ],
    }

    assert merge.merge({"claude-x": layers}, Rules())["claude-x"].wire == wire
