"""Turns that take long, and turns that would never end. The real opencode, a sidecar with short bounds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.harness import http_client, make_settings, sidecar_for, text_of
from tests.raw_client import RawClient, plain

WATCHDOG_SECONDS = 0.3
BOUND_SECONDS = 15.0
"""Of a turn. The short ones, which show that a session is alive, end within it on a slow machine, too."""


@pytest.fixture(scope="module")
async def own(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("long"),
        gateway.url,
        http={"heartbeat_seconds": 0.5},
        turn={"watchdog_seconds": WATCHDOG_SECONDS},
    )
    async with sidecar_for(settings) as running:
        yield running


@pytest.fixture
async def raw(own: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(own.url) as http:
        yield RawClient(http)


async def test_a_silent_tool_is_not_cut(raw: RawClient) -> None:
    """A command that says nothing for several times the watchdog's patience ends as it would anywhere."""
    session = await raw.new_session()
    turn = await raw.turn(session, "[[bash: sleep 2; echo slept]][[then]][[say: good morning]]")
    assert plain(turn, "session.error") == []
    (result,) = plain(turn, "agent.tool_result")
    assert (result["is_error"], result["content"][0]["text"]) == (False, "slept\n")
    assert text_of(turn) == "good morning"
    check_events(turn)


async def test_a_silence_shows_no_earlier_turn_again(raw: RawClient) -> None:
    """In a silence the whole conversation is read; only what the running turn has made is of it."""
    session = await raw.new_session()
    await raw.turn(session, "[[bash: echo earlier]][[then]][[say: that was earlier]]")
    turn = await raw.turn(session, "[[bash: sleep 2; echo slept]][[then]][[say: good morning]]")
    (result,) = plain(turn, "agent.tool_result")
    assert result["content"][0]["text"] == "slept\n"
    assert text_of(turn) == "good morning"
    check_events(await raw.events(session))


async def _fails_at_the_bound(raw: RawClient, script: str) -> None:
    """A turn of this script is ended with an error that names the setting; the session can be used on."""
    session = await raw.new_session()
    turn = await raw.turn(session, script)
    (error,) = plain(turn, "session.error")
    assert "SIDECAR_TURN_MAX_SECONDS" in error["error"]["message"], script
    assert error["error"]["retry_status"] == {"type": "exhausted"}
    assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
    check_events(turn)
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"


async def _may_take_longer(raw: RawClient) -> None:
    """A turn that waits for its client is not ended; answered after the bound, it goes on."""
    tool = {
        "type": "custom",
        "name": "think",
        "description": "Takes long.",
        "input_schema": {"type": "object"},
    }
    session = await raw.new_session(tools=[tool])
    async with raw.stream(session) as reader:
        await raw.send(session, "[[tool: think {}]][[then]][[say: at last]]")
        waiting = (await reader.until("session.status_idle"))[-1]["stop_reason"]["event_ids"]
        await reader.silence(BOUND_SECONDS + 1)
    async with raw.stream(session) as reader:
        await reader.until("session.status_idle")  # replayed: the turn is open
        answer = {"type": "user.custom_tool_result", "custom_tool_use_id": waiting[0]}
        await raw.send_events(session, answer)
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "at last"
    check_events(await raw.events(session))


async def test_the_upper_bound_ends_turns_and_no_client(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """In a tool, before or within the text, or while opencode tries again a gateway that answers with a page:
    all is closed, one error names the setting. The client may take longer than that to answer."""
    settings = make_settings(tmp_path, gateway.url, turn={"max_seconds": BOUND_SECONDS})
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        raw = RawClient(http)
        scripts = ["[[bash: sleep 600]]", "[[hang]]", "[[slow: 900x0.1 tick]]", "[[page]]"]
        ends = (_fails_at_the_bound(raw, script) for script in scripts)
        await asyncio.gather(*ends, _may_take_longer(raw))
