"""Model names: every rule that servers before us tried, and why looking up beats them."""

import pytest

from sidecar.naming import ModelRef, UnknownModelError, near_matches, qualify

IDS = {
    "claude-sonnet-4-5",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
    "bedrock/anthropic.claude-sonnet-4",
    "ollama/qwen3:8b",
    "groq/meta-llama/llama-4@latest",
    "anthropic/claude-opus-4-1",
    "litellm/odd",
    "text-embedding-3-small",
}
ALIASES = {"fast": "openai/gpt-4o-mini", "team/best": "claude-sonnet-4-5", "gone": "no/longer"}


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        # bare ids and ids whose slash says nothing about opencode's provider
        ("claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("bedrock/anthropic.claude-sonnet-4", "bedrock/anthropic.claude-sonnet-4"),
        ("groq/meta-llama/llama-4@latest", "groq/meta-llama/llama-4@latest"),
        ("ollama/qwen3:8b", "ollama/qwen3:8b"),
        # the prefix that opencode clients and the older platform put before everything
        ("litellm/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("litellm/openai/gpt-4o", "openai/gpt-4o"),
        ("litellm/anthropic/claude-opus-4-1", "anthropic/claude-opus-4-1"),
        ("litellm/ollama/qwen3:8b", "ollama/qwen3:8b"),
        # an id that begins with the prefix itself is taken as it is, and only one prefix is stripped
        ("litellm/odd", "litellm/odd"),
        ("litellm/litellm/odd", "litellm/odd"),
        # `anthropic/` stays part of the id although opencode knows a provider of that name
        ("anthropic/claude-opus-4-1", "anthropic/claude-opus-4-1"),
        # hidden from the list is not refused
        ("text-embedding-3-small", "text-embedding-3-small"),
        # aliases, with and without the prefix, with a slash of their own
        ("fast", "openai/gpt-4o-mini"),
        ("litellm/fast", "openai/gpt-4o-mini"),
        ("team/best", "claude-sonnet-4-5"),
    ],
)
def test_gateway_models(name: str, model_id: str) -> None:
    """A name means the gateway id that it equals, slashes and colons kept, under one provider."""
    assert ModelRef("litellm", model_id) == qualify(name, IDS, aliases=ALIASES)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "litellm/",
        "litellm",
        "gpt-4o",  # a tail alone is a guess
        "azure/gpt-4o",
        "opencode/big-pickle",  # opencode offers the gateway's models only
        "litellm/litellm/openai/gpt-4o",
        "litellm/opencode/big-pickle",
        "OPENAI/GPT-4O",
        " openai/gpt-4o",
        "openai/gpt-4o/",
        "anthropic/*",
        "gone",  # an alias of what the gateway no longer lists
        "openai/gpt-4o\x00",
    ],
)
def test_everything_else_is_refused(name: str) -> None:
    """No rule guesses: a name that is not offered is an error."""
    with pytest.raises(UnknownModelError):
        qualify(name, IDS, aliases=ALIASES)


def test_the_refusal_says_which_field_and_what_was_meant() -> None:
    """The sentence names the field, the name as typed, and near matches."""
    with pytest.raises(UnknownModelError) as caught:
        qualify("litellm/gpt-4o", IDS)
    assert caught.value.suggestions[0] == "openai/gpt-4o"
    sentence = caught.value.sentence("model.id")
    assert sentence.startswith("model.id: 'litellm/gpt-4o' is not offered by the gateway.")
    assert "Did you mean openai/gpt-4o" in sentence


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("gpt-4o", "openai/gpt-4o"),
        ("azure/gpt-4o", "openai/gpt-4o"),
        ("claude-sonet-4-5", "claude-sonnet-4-5"),
        ("OPENAI/GPT-4O", "openai/gpt-4o"),
        ("qwen3", "ollama/qwen3:8b"),
    ],
)
def test_near_matches(name: str, best: str) -> None:
    """The same last segment comes first, then ids that contain the name, then spelling."""
    matches = near_matches(name, IDS)
    assert matches[0] == best
    assert len(matches) <= 3


def test_nothing_near_is_an_empty_list() -> None:
    """A name like no other has no suggestions rather than silly ones."""
    assert near_matches("zzzzzz", IDS) == []


@pytest.mark.parametrize("model_id", ["a", "openai/gpt-4o", "a/b/c:d"])
def test_refs_read_back(model_id: str) -> None:
    """A stored ref reads back as itself, slashes in the id included."""
    ref = ModelRef("litellm", model_id)
    assert ModelRef.parse(str(ref)) == ref
