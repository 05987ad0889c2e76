"""The SDK's readers: an odd field or item of a vendor's list costs only itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.sdk import AsyncClient, ModelPage, RequestPolicy
from sidecar.sdk.models import UNKNOWN_DATE
from tests.odd_values import ODD_VALUES


@dataclass(frozen=True)
class Vendor:
    """How one runtime lists: where its items are, how an item names itself, which fields are read."""

    runtime: str
    endpoint: str
    items: str
    id_field: str
    fields: tuple[str, ...]
    page_fields: tuple[str, ...]
    is_key_needed: bool = True


ANTHROPIC_FIELDS = (
    "id", "type", "display_name", "created_at", "lifecycle", "max_input_tokens", "max_tokens",
    "capabilities", "line", "deprecated_at", "retires_at", "newer",
)  # fmt: skip
VENDORS = [
    Vendor("anthropic", "anthropic", "data", "id", ANTHROPIC_FIELDS, ("has_more", "last_id")),
    Vendor(
        "opencode",
        "litellm",
        "data",
        "id",
        ("id", "created", "created_at", "mode", "max_output_tokens", "max_input_tokens"),
        ("has_more", "last_id", "object"),
    ),
    Vendor("opencode", "opencode", "data", "id", ANTHROPIC_FIELDS, ("has_more", "first_id")),
    Vendor("cursor", "cursor", "items", "id", ("id", "displayName", "aliases"), ("nextCursor",)),
    Vendor(
        "gemini",
        "gemini",
        "models",
        "name",
        (
            *("name", "displayName", "inputTokenLimit", "outputTokenLimit"),
            "supportedGenerationMethods",
        ),
        ("nextPageToken",),
    ),
]


class Text:
    """Answers one JSON text, whatever it is asked."""

    def __init__(self) -> None:
        self.text = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        # A cursor that is followed would be repeated for ever: the second page is the last.
        is_second = request.query.keys() & {"after_id", "cursor", "pageToken"}
        text = '{"data": [], "items": [], "models": []}' if is_second else self.text
        return web.Response(text=text, content_type="application/json")


@pytest.fixture
async def vendor_api() -> AsyncIterator[tuple[Text, str]]:
    fake = Text()
    server = TestServer(fake.app())
    await server.start_server()
    yield fake, str(server.make_url("/")).rstrip("/")
    await server.close()


def client_of(vendor: Vendor, url: str) -> AsyncClient:
    return AsyncClient(
        api_keys={vendor.endpoint: "key-of-the-test"},
        base_urls={vendor.endpoint: url},
        environ={},
        policy=RequestPolicy(max_retries=0),
    )


def check(page: ModelPage, good: str) -> None:
    """The good model is there, and the page can be sent on as JSON and read again."""
    assert good in [model.id for model in page]
    shown: Any = page.model_dump(mode="json")
    text = json.dumps(shown, allow_nan=False).encode("utf-8")
    assert ModelPage.model_validate_json(text) == ModelPage.model_validate(shown)


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda v: f"{v.runtime}-{v.endpoint}")
async def test_any_odd_value_in_any_field(vendor: Vendor, vendor_api: tuple[Text, str]) -> None:
    """Every odd value in every field of an item and of the page leaves the other model listed."""
    fake, url = vendor_api
    good = json.dumps({vendor.id_field: "good"})
    async with client_of(vendor, url) as client:
        for value in ODD_VALUES:
            for field in vendor.fields:
                odd = f'{{"{vendor.id_field}": "odd", {json.dumps(field)}: {value}}}'
                fake.text = f'{{"{vendor.items}": [{odd}, {good}, {value}]}}'
                check(await client.models.list(vendor.runtime), "good")
            for field in vendor.page_fields:
                fake.text = f'{{"{vendor.items}": [{good}], {json.dumps(field)}: {value}}}'
                check(await client.models.list(vendor.runtime), "good")


async def test_limits_and_dates_out_of_range_are_unknown(vendor_api: tuple[Text, str]) -> None:
    """A limit that JavaScript could not count and a date before the epoch count as not sent."""
    fake, url = vendor_api
    item = {"id": "m", "max_input_tokens": 2**63 - 1, "created_at": "0001-01-01T00:00:00Z"}
    fake.text = json.dumps({"data": [item]})
    async with client_of(VENDORS[0], url) as client:
        (model,) = await client.models.list("anthropic")
    assert model.max_input_tokens is None
    assert model.created_at == UNKNOWN_DATE


async def test_placeholders_of_litellm_are_no_models(vendor_api: tuple[Text, str]) -> None:
    """They stand for a permission of a key or a team."""
    fake, url = vendor_api
    names = ("all-team-models", "no-default-models", "all-proxy-models", "gpt")
    fake.text = json.dumps({"data": [{"id": name, "object": "model"} for name in names]})
    async with client_of(VENDORS[1], url) as client:
        assert [model.id for model in await client.models.list("opencode")] == ["gpt"]


@pytest.mark.parametrize(
    "text",
    ['["gpt", "*", "all-team-models"]', '{"models": ["gpt"]}', '{"data": ["gpt", {"id": "gpt"}]}'],
)
async def test_ids_alone_are_models(vendor_api: tuple[Text, str], text: str) -> None:
    """Small gateways list plain ids, in an array alone or under another name, as the sidecar reads them."""
    fake, url = vendor_api
    fake.text = text
    async with client_of(VENDORS[1], url) as client:
        assert [model.id for model in await client.models.list("opencode")] == ["gpt"]
