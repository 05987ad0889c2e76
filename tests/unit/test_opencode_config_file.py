"""The model entries and the file that opencode reads."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.opencode.config_file import AGENT, ConfigFile, render
from sidecar.opencode.provider import Costs, ModelEntry, model_config


def test_entry_becomes_opencodes_fields() -> None:
    """Limits, modalities, abilities and prices of a model reach opencode under its names."""
    entry = ModelEntry(
        "openai/gpt-4o",
        display_name="GPT-4o",
        max_input_tokens=100_000,
        max_output_tokens=4_000,
        input_modalities=frozenset({"text", "image", "pdf", "smell"}),
        supports_reasoning=True,
        costs=Costs(2.5, 10.0, 1.25),
    )
    assert model_config(entry) == {
        "name": "GPT-4o",
        "limit": {"context": 100_000, "output": 4_000},
        "tool_call": True,
        "reasoning": True,
        "attachment": True,
        "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]},
        "temperature": True,
        "cost": {"input": 2.5, "output": 10.0, "cache_read": 1.25, "cache_write": 0.0},
    }


def test_unknown_limits_get_conservative_defaults() -> None:
    """A model without known limits still has a context limit, because without one nothing is compacted."""
    config = model_config(ModelEntry("m"))
    assert config["limit"] == {"context": 128_000, "output": 8192}
    assert config["name"] == "m"
    assert config["attachment"] is False


@pytest.mark.parametrize(
    ("context", "output", "limit"),
    [
        (200_000, 64_000, {"context": 200_000, "output": 64_000}),
        (32_768, 32_768, {"context": 32_768, "output": 16_384}),
        (16_384, None, {"context": 16_384, "output": 8192}),
        (8192, 8192, {"context": 0, "output": 8192}),
        (4096, 8192, {"context": 0, "output": 4096}),
        (1, 10**12, {"context": 0, "output": 1}),
    ],
)
def test_limits_leave_room_to_work(context: int, output: int | None, limit: dict[str, int]) -> None:
    """opencode compacts again and again in a context that its answer would fill: that asks the model
    without end. Context 0 switches compaction off."""
    entry = ModelEntry(id="m", max_input_tokens=context, max_output_tokens=output)
    assert model_config(entry)["limit"] == limit


def test_messages_wire_overrides_the_package() -> None:
    """A model on the messages wire gets the Anthropic package, the others the provider's default."""
    document = json.loads(
        render({"a": ModelEntry("a", wire="messages"), "b": ModelEntry("b")}, default_model=None)
    )
    provider = document["provider"]["litellm"]
    assert provider["npm"] == "@ai-sdk/openai-compatible"
    assert provider["models"]["a"]["provider"] == {"npm": "@ai-sdk/anthropic"}
    assert "provider" not in provider["models"]["b"]


def test_static_parts_never_ask_and_never_phone_home() -> None:
    """The file allows everything but questions, names our agent, and switches off what calls out."""
    document = json.loads(render({"x/y:z": ModelEntry("x/y:z")}, default_model=None))
    assert document["enabled_providers"] == ["litellm"]
    assert document["model"] == document["small_model"] == "litellm/x/y:z"
    assert (document["share"], document["autoupdate"], document["snapshot"]) == (
        "disabled",
        False,
        False,
    )
    assert document["permission"]["question"] == "deny"
    assert "ask" not in json.dumps(document["permission"])
    assert document["agent"][AGENT]["mode"] == "primary"
    assert document["agent"]["title"] == {"disable": True}


def test_no_models_still_make_a_valid_file() -> None:
    """Before the gateway has answered there is a file without models and without a default."""
    document = json.loads(render({}, default_model=None))
    assert document["provider"]["litellm"]["models"] == {}
    assert "model" not in document


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=40).filter(lambda s: s.isprintable()),
        st.text(alphabet=st.characters(codec="utf-8"), max_size=30),
        max_size=5,
    ),
    st.sampled_from(
        ["{env:HOME}", "{file:/etc/passwd}", '"baseURL": "{env:SIDECAR_RELAY_URL}"', "\\{env:X}"]
    ),
)
def test_names_survive_and_never_substitute(names: dict[str, str], poison: str) -> None:
    """Whatever the gateway calls its models comes back from the file, and the only references in its text
    are our two."""
    models = {
        key + poison: ModelEntry(key + poison, display_name=name + poison)
        for key, name in names.items()
    }
    content = render(models, default_model=None)
    document = json.loads(content)
    assert {
        key: value["name"] for key, value in document["provider"]["litellm"]["models"].items()
    } == {key: entry.display_name for key, entry in models.items()}
    assert content.count(b"{env:") == 2
    assert content.count(b"{file:") == 0
    assert document["provider"]["litellm"]["options"] == {
        "baseURL": "{env:SIDECAR_RELAY_URL}",
        "apiKey": "{env:SIDECAR_RELAY_TOKEN}",
    }


async def test_register_writes_once_per_content(tmp_path: Path) -> None:
    """Equal content is no new generation and no new file; other content is."""
    path = tmp_path / "opencode.json"
    file = ConfigFile(path)
    assert await file.register({"a": ModelEntry("a")}) == 1
    before = path.stat()
    assert await file.register({"a": ModelEntry("a")}) == 1
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert await file.register({"a": ModelEntry("a"), "b": ModelEntry("b")}) == 2
    assert path.stat().st_ino != before.st_ino, "replaced by rename, never rewritten in place"
    assert file.knows("b")
    assert [p.name for p in tmp_path.iterdir()] == ["opencode.json"]


async def test_default_model_is_written(tmp_path: Path) -> None:
    """The chosen default serves opencode's own calls."""
    path = tmp_path / "opencode.json"
    file = ConfigFile(path)
    models = {"a": ModelEntry("a"), "b": ModelEntry("b")}
    await file.register(models)
    assert json.loads(path.read_bytes())["small_model"] == "litellm/a"
    assert await file.register(models, default_model="b") == 2
    assert json.loads(path.read_bytes())["small_model"] == "litellm/b"


async def test_a_vanished_file_is_written_again(tmp_path: Path) -> None:
    """If the file is deleted, the next registration restores it even with equal content."""
    path = tmp_path / "opencode.json"
    file = ConfigFile(path)
    await file.register({"a": ModelEntry("a")})
    path.unlink()
    await file.register({"a": ModelEntry("a")})
    assert path.exists()


@pytest.mark.parametrize(
    "entry",
    [
        ModelEntry("m", max_input_tokens=-5),
        ModelEntry("m", costs=Costs(float("nan"))),
        ModelEntry("m", costs=Costs(-1.0)),
        ModelEntry("m", max_input_tokens=2**63 - 1, max_output_tokens=2**63 - 1),
        ModelEntry("m", costs=Costs(1e300)),
        ModelEntry("m", display_name="x" * 5000),
        ModelEntry("m" * 1025),
        ModelEntry("line\nbreak"),
    ],
)
async def test_a_model_that_makes_no_valid_entry_is_left_out_alone(
    tmp_path: Path, entry: ModelEntry
) -> None:
    """An odd model costs itself: the file has the others, also when the odd one was to be the default."""
    path = tmp_path / "opencode.json"
    file = ConfigFile(path)
    models = {"good": ModelEntry("good"), entry.id: entry}
    await file.register(models, default_model=entry.id)
    document = json.loads(path.read_bytes())
    assert list(document["provider"]["litellm"]["models"]) == ["good"]
    assert document["small_model"] == "litellm/good"
    assert file.knows("good")
    assert file.refused.keys() == {entry.id}
    await file.register({"good": ModelEntry("good")})
    assert file.refused == {}
