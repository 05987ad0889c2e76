"""Lists as real gateways send them: an odd field costs the field, an odd item the item, never the list."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.aiokit import TaskOwner
from sidecar.app import RunningSidecar
from sidecar.config import GatewaySettings
from sidecar.errors import InvalidRequestError
from sidecar.gateway.catalogue import Catalogue, CatalogueSnapshot
from sidecar.gateway.client import GatewayClient
from sidecar.store import disk_cache
from tests.fakes.gateway_fixed import Fixed, FixedGateway, model_list
from tests.harness import http_client, make_settings, sidecar_for
from tests.odd_values import ODD_VALUES
from tests.waiting import patience

GOOD = {"id": "good", "object": "model", "mode": "chat", "max_input_tokens": 1000}

FIELDS_OF_SOURCES = {
    "/v1/models": [
        "id", "object", "created", "created_at", "display_name", "mode", "max_input_tokens",
        "max_output_tokens", "max_tokens", "supports_vision", "supported_reasoning_efforts", "unknown",
    ],
    "/model_group/info": ["model_group", "mode", "max_input_tokens", "input_cost_per_token", "providers"],
    "/v1/model/info": ["model_name", "litellm_params", "model_info"],
}  # fmt: skip
NAME_OF_ITEM = {
    "/v1/models": "id",
    "/model_group/info": "model_group",
    "/v1/model/info": "model_name",
}


@pytest.fixture
async def gateway() -> AsyncIterator[FixedGateway]:
    fixed = FixedGateway()
    await fixed.start()
    yield fixed
    await fixed.close()


def make_catalogue(
    gateway: FixedGateway, session: aiohttp.ClientSession, tasks: TaskOwner, file: Path
) -> Catalogue:
    settings = GatewaySettings(miss_refresh_seconds=0.001)
    client = GatewayClient(settings=settings, base_url=gateway.url, api_key=None, session=session)
    return Catalogue(client=client, settings=settings, file=file, tasks=tasks)


async def read(gateway: FixedGateway, file: Path) -> CatalogueSnapshot:
    """Return what a new catalogue makes of the gateway, and see that a restart reads the same from disk."""
    tasks = TaskOwner("test")
    async with aiohttp.ClientSession() as session:
        snapshot = await make_catalogue(gateway, session, tasks, file).refresh()
        restarted = make_catalogue(gateway, session, tasks, file)
        restarted.load()
        assert restarted.snapshot is not None
        assert dict(restarted.snapshot.entries) == dict(snapshot.entries)
        await tasks.close()
    return snapshot


@pytest.mark.parametrize("path", FIELDS_OF_SOURCES)
async def test_any_odd_value_in_any_field_costs_that_field(
    gateway: FixedGateway, tmp_path: Path, path: str
) -> None:
    """Every odd value in every field of every source: the other model is as it was, and the list is there.

    One list for each field has an item for each odd value.
    """
    key = NAME_OF_ITEM[path]
    whole = {key: "good", **({} if key == "model_name" else {"max_output_tokens": 77})}
    if key == "model_name":
        whole["model_info"] = {"max_output_tokens": 77}
    good = json.dumps(whole | ({"mode": "chat"} if key != "model_name" else {}))
    names = [f"odd{number}" for number in range(len(ODD_VALUES))]
    gateway.answers["/v1/models"] = model_list("good", *names)
    for field in FIELDS_OF_SOURCES[path]:
        items = [
            f'{{"{key}": "{name}", {json.dumps(field)}: {value}}}'
            for name, value in zip(names, ODD_VALUES, strict=True)
        ]
        gateway.answers[path] = Fixed(f'{{"data": [{", ".join([*items, good])}]}}')
        snapshot = await read(gateway, tmp_path / "catalogue.json")
        assert snapshot.entries["good"].max_output_tokens == 77, field
        if field != key:
            assert set(names) <= set(snapshot.entries), field
        for entry in snapshot.entries.values():
            datetime.fromisoformat(entry.created_at)


async def test_skips_are_counted_and_named(gateway: FixedGateway, tmp_path: Path) -> None:
    """The item without an id and the field that is no number are named, with what is wrong in them."""
    gateway.answers["/v1/models"] = Fixed(
        {
            "data": [
                GOOD,
                {"id": 7},
                "plain",
                None,
                GOOD | {"id": "big", "max_input_tokens": 2**63 - 1, "max_output_tokens": 0},
                GOOD | {"id": "old", "created_at": "0001-01-01T00:00:00Z"},
            ]
        }
    )
    snapshot = await read(gateway, tmp_path / "catalogue.json")
    assert set(snapshot.listed) == {"good", "plain", "big", "old"}
    assert snapshot.entries["old"].created_at == "1970-01-01T00:00:00Z"
    assert snapshot.skipped_counts["models"] == 3
    named = {(skip.item, skip.field) for skip in snapshot.skipped["models"]}
    assert named == {("item 1", ""), ("item 3", ""), ("big", "max_input_tokens")}
    assert all(skip.reason for skip in snapshot.skipped["models"])


async def test_a_copy_on_disk_of_an_earlier_version_is_held_to_the_bounds(
    gateway: FixedGateway, tmp_path: Path
) -> None:
    """What an earlier version kept and this one would not read is dropped from the copy, field by field."""
    file = tmp_path / "catalogue.json"
    gateway.answers["/v1/models"] = model_list("m", max_input_tokens=5)
    await read(gateway, file)
    kept = json.loads(file.read_text())
    kept["content"]["models"]["m"] |= {
        "created_at": "1-01-01T00:00:00Z",
        "max_output_tokens": 2**63 - 1,
        "display_name": "x" * 5000,
    }
    file.write_text(json.dumps(kept))
    assert disk_cache.load(file, fingerprint=kept["fingerprint"]) is not None
    tasks = TaskOwner("test")
    async with aiohttp.ClientSession() as session:
        catalogue = make_catalogue(gateway, session, tasks, file)
        catalogue.load()
    assert catalogue.snapshot is not None
    entry = catalogue.snapshot.entries["m"]
    assert (entry.max_input_tokens, entry.max_output_tokens) == (5, None)
    assert (entry.display_name, entry.created_at) == ("m", "1970-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("second", "listed", "skips"),
    [
        ({"data": [{"id": "b"}], "has_more": False}, {"a", "b"}, 0),
        ({"data": [{"id": "b"}], "has_more": True, "last_id": "b"}, {"a", "b", "c"}, 0),
        ({"data": [{"id": "b"}], "has_more": "true", "last_id": "a/1"}, {"a", "b"}, 0),
        ({"data": [{"id": "b"}], "has_more": True, "last_id": None}, {"a", "b"}, 0),
        (None, {"a"}, 1),
    ],
    ids=["two", "three", "a cursor again", "no cursor", "refused"],
)
async def test_all_pages_are_read(
    gateway: FixedGateway, tmp_path: Path, second: Any, listed: set[str], skips: int
) -> None:
    """Of a gateway in Anthropic's format; a page that is refused is named, and costs itself only."""
    first = {"data": [{"id": "a"}], "has_more": True, "last_id": "a/1"}
    gateway.answers["/v1/models"] = Fixed(first)
    refusal = Fixed({"error": "no such parameter"}, 400)
    gateway.answers["/v1/models?after_id=a%2F1"] = refusal if second is None else Fixed(second)
    gateway.answers["/v1/models?after_id=b"] = Fixed({"data": ["c"]})
    snapshot = await read(gateway, tmp_path / "catalogue.json")
    assert set(snapshot.listed) == listed
    assert snapshot.skipped_counts["models"] == skips


@pytest.mark.parametrize("name", ["all-team-models", "no-default-models", "all-proxy-models"])
async def test_placeholders_of_litellm_are_hidden(
    gateway: FixedGateway, tmp_path: Path, name: str
) -> None:
    """They stand for a permission, not for a model; hidden with that reason."""
    gateway.answers["/v1/models"] = model_list(name, "good")
    snapshot = await read(gateway, tmp_path / "catalogue.json")
    assert snapshot.listed == ("good",)
    assert "placeholder" in (snapshot.entries[name].hidden_because or "")


@pytest.mark.parametrize("name", ["x" * 1025, "line\nbreak", "nul\0"])
async def test_a_model_that_no_request_can_name_is_hidden_and_refused_alone(
    gateway: FixedGateway, tmp_path: Path, name: str
) -> None:
    """The reason is in the catalogue and in the refusal; the other models are as they were."""
    gateway.answers["/v1/models"] = model_list(name, "good")
    tasks = TaskOwner("test")
    async with aiohttp.ClientSession() as session:
        catalogue = make_catalogue(gateway, session, tasks, tmp_path / "catalogue.json")
        snapshot = await catalogue.refresh()
        assert snapshot.listed == ("good",)
        read_as = name.replace("\0", "\ufffd")
        reason = snapshot.entries[read_as].hidden_because
        assert reason
        with pytest.raises(InvalidRequestError, match=reason) as caught:
            await catalogue.resolve(read_as)
        assert len(caught.value.message) < 500
        await catalogue.resolve("good")
        await tasks.close()


async def test_team_deployments_and_items_without_parameters_keep_what_they_say(
    gateway: FixedGateway, tmp_path: Path
) -> None:
    """A team's deployment is listed under its public name; where a deployment leads may be said elsewhere."""
    gateway.answers["/v1/models"] = model_list("claude-team", "claude-null", mode=None)
    info: dict[str, Any] = {
        "mode": "chat", "max_input_tokens": 200_000, "max_output_tokens": 64_000,
        "supports_vision": True, "supports_reasoning": True, "litellm_provider": "openai",
    }  # fmt: skip
    gateway.answers["/v1/model/info"] = Fixed(
        {
            "data": [
                {
                    "model_name": "model_name_1234_5678",
                    "litellm_params": {"model": "openai/claude-4"},
                    "model_info": info
                    | {"team_id": "1234", "team_public_model_name": "claude-team"},
                },
                {"model_name": "claude-null", "litellm_params": None, "model_info": info},
            ]
        }
    )
    snapshot = await read(gateway, tmp_path / "catalogue.json")
    for name in ("claude-team", "claude-null"):
        entry = snapshot.entries[name]
        assert (entry.max_input_tokens, entry.max_output_tokens) == (200_000, 64_000)
        assert entry.input_modalities == ("text", "image")
        assert entry.supports_reasoning is True
        assert entry.wire == "chat", "an OpenAI deployment would have to translate messages"


@pytest.fixture
async def sidecar(gateway: FixedGateway, tmp_path: Path) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(tmp_path, gateway.url, gateway={"api_key": None})
    gateway.answers["/v1/models"] = Fixed(
        f'{{"data": [{json.dumps(GOOD)}, {{"id": "odd", "created_at": "0001-01-01T00:00:00Z", '
        f'"max_tokens": {"9" * 320}, "mode": ["chat"]}}, {{"id": {{}}}}]}}'
    )
    async with sidecar_for(settings, is_ready=False) as running:
        yield running


async def test_the_lists_and_the_admin_answer(sidecar: RunningSidecar) -> None:
    """`/v1/models` has both models, and `/admin/catalogue` says what was skipped."""
    async with http_client(sidecar.url) as http, patience():
        async with http.get("/v1/models") as response:
            page = await response.json()
        assert {item["id"] for item in page["data"]} == {"good", "odd"}
        assert sidecar.admin_url is not None
        async with http.get(f"{sidecar.admin_url}/admin/catalogue") as response:
            skipped = (await response.json())["skipped"]["models"]
        assert skipped["count"] == 2, "the integer was no number before it could be looked at"
        assert [(s["item"], s["field"]) for s in skipped["first"]] == [
            ("odd", "mode"),
            ("item 2", ""),
        ]
        async with http.get(f"{sidecar.admin_url}/metrics") as response:
            assert 'catalogue_skipped{source="models"} 2.0' in await response.text()
