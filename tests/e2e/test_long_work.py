"""Turns that take long, and turns that would never end. The real opencode, a sidecar with short bounds."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.harness import http_client, make_settings, sidecar_for, text_of
from tests.raw_client import RawClient, plain

WATCHDOG_SECONDS = 0.3
MAX_SECONDS = 10.0


@pytest.fixture(scope="module")
async def own(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("long"),
        gateway.url,
        http={"heartbeat_seconds": 0.5},
        turn={"watchdog_seconds": WATCHDOG_SECONDS, "max_seconds": MAX_SECONDS},
        child={"drain_seconds": 1.0},
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


async def test_a_client_that_takes_its_time_is_waited_for(raw: RawClient) -> None:
    """The upper bound is the turn's; the client may take longer than that to answer."""
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
        await reader.silence(MAX_SECONDS + 1)
    async with raw.stream(session) as reader:
        await reader.until("session.status_idle")  # replayed: the turn is open
        answer = {"type": "user.custom_tool_result", "custom_tool_use_id": waiting[0]}
        await raw.send_events(session, answer)
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "at last"
    check_events(await raw.events(session))


async def test_the_upper_bound_ends_a_turn_honestly(raw: RawClient) -> None:
    """At the bound, in a tool, before or within the text: all is closed, one error names the setting."""
    scripts = ["[[bash: sleep 600]]", "[[hang]]", "[[slow: 900x0.1 tick]]"]
    sessions = [await raw.new_session() for _ in scripts]
    turns = await asyncio.gather(*map(raw.turn, sessions, scripts))
    for session, turn in zip(sessions, turns, strict=True):
        (error,) = plain(turn, "session.error")
        assert "SIDECAR_TURN_MAX_SECONDS" in error["error"]["message"]
        assert error["error"]["retry_status"] == {"type": "exhausted"}
        assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
        check_events(turn)
        assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"


async def test_an_answer_that_is_no_stream_is_bounded(raw: RawClient) -> None:
    """A gateway that answers a streaming call with a page: retried, and never beyond the upper bound."""
    session = await raw.new_session()
    turn = await raw.turn(session, "[[page]]", seconds=MAX_SECONDS + 20)
    assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
    assert len(plain(turn, "session.error")) == 1
    assert not plain(turn, "agent.message")
    check_events(turn)
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"
