"""A model added to the gateway is usable at once, while a turn streams on undisturbed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from tests.fakes.gate import Gate
from tests.harness import (
    GATEWAY_KEY,
    RUNTIME_KEY,
    http_client,
    make_settings,
    sidecar_for,
    text_of,
    types_of,
)
from tests.raw_client import RawClient
from tests.waiting import patience

CHUNKS = 60
SLOW = f"[[slow: {CHUNKS}x0.1 tick]]"
WHOLE = " ".join(f"tick{n}" for n in range(1, CHUNKS + 1))
MODEL = "vendor/new:model"


@asynccontextmanager
async def site(
    root: Path, **settings: Any
) -> AsyncIterator[tuple[RunningSidecar, DemoGateway, Gate]]:
    """A sidecar over a gateway whose slow answers wait at a gate."""
    gate = Gate()
    gateway = DemoGateway(key=GATEWAY_KEY, sleep=gate)
    await gateway.start()
    try:
        async with sidecar_for(make_settings(root, gateway.url, gateway=settings)) as sidecar:
            yield sidecar, gateway, gate
    finally:
        await gateway.close()


async def use_while_another_turn_streams(
    sidecar: RunningSidecar, gateway: DemoGateway, gate: Gate, *, refresh: bool
) -> None:
    """Add a model in the middle of a slow turn, use it, and see that the slow turn did not notice."""
    model, listed = MODEL, asyncio.Event()
    sidecar.catalogue.on_change(lambda now: model in now.listed and listed.set())
    async with http_client(sidecar.url) as http:
        raw = RawClient(http)
        slow_session = await raw.new_session()
        boot = sidecar.supervisor.boot
        async with raw.stream(slow_session, "?event_deltas[]=agent.message") as slow:
            await raw.send(slow_session, SLOW)
            await slow.until("event_delta")  # text is coming
            gateway.models[model] = DemoModel(id=model)
            if refresh:
                page = await raw.call("GET", "/v1/models?refresh=true")
                assert model in [item["id"] for item in page["data"]]
            async with patience():
                await listed.wait()
            async with anthropic.AsyncAnthropic(base_url=sidecar.url, api_key=RUNTIME_KEY) as sdk:
                assert model in [item.id async for item in sdk.models.list()]
                assert (await sdk.models.retrieve(model)).id == model
            session = await raw.new_session(model=model)
            turn = await raw.turn(session, "[[say: I am new]]")
            assert text_of(turn) == "I am new"
            assert await raw.status(slow_session) == "running", "the turns must overlap"
            gate.open()
            await slow.until("session.status_idle")
        events = await raw.events(slow_session)
    assert text_of(events).strip() == WHOLE
    assert types_of(events).count("session.status_running") == 1
    assert "session.error" not in types_of(events)
    assert events[-1]["stop_reason"]["type"] == "end_turn"
    assert sidecar.supervisor.boot == boot
    asked = [r.body["model"] for r in gateway.requests if r.method == "POST"]
    assert model in asked


async def test_a_new_model_is_listed_on_demand_and_used_beside_a_running_turn(
    tmp_path: Path,
) -> None:
    """`?refresh=true` lists it; a new agent and session use it; the running turn streams to its end."""
    async with site(tmp_path) as (sidecar, gateway, gate):
        await use_while_another_turn_streams(sidecar, gateway, gate, refresh=True)


async def test_a_new_model_is_listed_by_the_timer_and_used_beside_a_running_turn(
    tmp_path: Path,
) -> None:
    """The same without a request for it: the timer finds it."""
    async with site(tmp_path, refresh_seconds=0.2) as (sidecar, gateway, gate):
        await use_while_another_turn_streams(sidecar, gateway, gate, refresh=False)


async def test_an_agent_may_name_a_model_nobody_has_listed_yet(
    sidecar: RunningSidecar, gateway: DemoGateway, raw: RawClient
) -> None:
    """An unknown name makes the sidecar look once more before it refuses."""
    gateway.models["just-deployed"] = DemoModel(id="just-deployed")
    try:
        session = await raw.new_session(model="litellm/just-deployed")
        assert text_of(await raw.turn(session, "[[say: here]]")) == "here"
    finally:
        del gateway.models["just-deployed"]
        await sidecar.catalogue.refresh()
