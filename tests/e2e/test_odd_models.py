"""Models that opencode cannot hold: none of them disturbs another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DEFAULT_MODELS, DemoModel
from sidecar.opencode.environment import ChildFiles
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for, text_of
from tests.raw_client import RawClient

RESERVED = [
    "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__",
    "constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString",
    "toString", "valueOf",
]  # fmt: skip
"""What every JavaScript object has: opencode fails to load every directory when one of them is a model."""
PLAIN = [
    "then", "toJSON", "prototype", "null", "123", " leading", "a b", "ü/ß", "😀", "a/constructor",
    "constructor/a", "/", "..", "{env:HOME}", "*x*", "sidecar:constructor", "sidecar:x", "x" * 1024,
]  # fmt: skip
"""Ids that only look dangerous."""


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    models = [*DEFAULT_MODELS, *(DemoModel(id=name) for name in (*RESERVED, *PLAIN))]
    demo = DemoGateway(key=GATEWAY_KEY, models=models)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture(scope="module")
async def sidecar(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("odd"), gateway.url, gateway={"miss_refresh_seconds": 0.1}
    )
    async with sidecar_for(settings) as running:
        yield running


@pytest.fixture
async def raw(sidecar: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(sidecar.url) as http:
        yield RawClient(http)


@pytest.mark.parametrize("name", [*RESERVED, *PLAIN], ids=lambda name: ascii(name)[:30])
async def test_any_listed_id_holds_a_turn(raw: RawClient, gateway: DemoGateway, name: str) -> None:
    """The gateway is asked for the model by its own id, and the answer comes."""
    asked = len(gateway.requests)
    session = await raw.new_session(model=name)
    assert text_of(await raw.turn(session, "[[say: it works]]")) == "it works"
    models = [r.body["model"] for r in list(gateway.requests)[asked:] if r.method == "POST"]
    assert models
    assert set(models) == {name}


async def test_the_stand_in_is_known_to_opencodes_own_api(
    sidecar: RunningSidecar, raw: RawClient, gateway: DemoGateway
) -> None:
    """A client of the forwarded API picks the id that opencode's list shows, or the gateway's own."""
    await raw.new_session(model="valueOf")  # puts it into opencode's config
    for shown in ("valueOf", "sidecar:valueOf"):
        asked = len(gateway.requests)
        session = await raw.call("POST", "/session", {"title": "native"})
        body = {
            "model": {"providerID": "litellm", "modelID": shown},
            "parts": [{"type": "text", "text": "[[say: native]]"}],
        }
        answer = await raw.call("POST", f"/session/{session['id']}/message", body)
        assert "native" in [part.get("text") for part in answer["parts"]]
        models = [r.body["model"] for r in list(gateway.requests)[asked:] if r.method == "POST"]
        assert set(models) == {"valueOf"}


ODD = {
    "endless": {"max_input_tokens": 2**63 - 1, "max_output_tokens": 2**63 - 1},
    "costly": {"input_cost_per_token": 1e308, "output_cost_per_token": 1e300},
}
UNNAMEABLE = "y" * 1025


async def test_odd_models_in_use_and_as_the_default_disturb_nothing_after_a_restart(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Limits and prices out of range cost themselves: those models work, new ones too, and the sidecar
    starts again with all of them stored and one of them the default."""
    for name, odd in ODD.items():
        gateway.models[name] = DemoModel.model_validate({"id": name, **odd})
    gateway.models[UNNAMEABLE] = DemoModel(id=UNNAMEABLE)
    settings = make_settings(
        tmp_path, gateway.url, gateway={"default_model": "endless", "miss_refresh_seconds": 0.1}
    )
    for start in ("first", "second"):
        async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
            raw = RawClient(http)
            for name in (*ODD, "constructor"):
                session = await raw.new_session(model=name)
                assert text_of(await raw.turn(session, "[[say: fine]]")) == "fine"
            agent = {"name": "a", "model": UNNAMEABLE}
            async with http.post("/v1/agents", json=agent) as response:
                assert response.status == 400
                assert "longer than 1024" in (await response.json())["error"]["message"]
            gateway.models[start] = DemoModel(id=start)
            session = await raw.new_session(model=start)
            assert text_of(await raw.turn(session, "[[say: late]]")) == "late"
            assert not sidecar.config_file.refused


async def test_nothing_counts_as_in_use_before_its_write_succeeded(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """A config that cannot be written fails that request only; its model is not written with the next."""
    folder = ChildFiles(tmp_path / "opencode").config_file.parent
    moved = folder.with_name("moved-away")
    async with (
        sidecar_for(make_settings(tmp_path, gateway.url)) as sidecar,
        http_client(sidecar.url) as http,
    ):
        await asyncio.to_thread(folder.rename, moved)
        try:
            async with http.post("/v1/agents", json={"name": "a", "model": "then"}) as response:
                assert response.status >= 500
        finally:
            await asyncio.to_thread(moved.rename, folder)
        assert not sidecar.config_file.knows("then")
        raw = RawClient(http)
        session = await raw.new_session(model="toJSON")
        assert text_of(await raw.turn(session, "[[say: on we go]]")) == "on we go"
        assert not sidecar.config_file.knows("then")
