"""Turns that take long, and turns that would never end. The real opencode, a sidecar with short bounds."""

from collections.abc import AsyncIterator

import pytest

from sidecar.app import Sidecar
from sidecar.gateway.demo import DemoGateway
from tests.event_books import check_events
from tests.harness import http_client, make_settings, sidecar_for, text_of, types_of
from tests.raw_client import RawClient, plain

WATCHDOG_SECONDS = 0.5
MAX_SECONDS = 6.0


@pytest.fixture(scope="module")
async def own(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sidecar]:
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
async def raw(own: Sidecar) -> AsyncIterator[RawClient]:
    async with http_client(own.url) as http:
        yield RawClient(http)


async def test_a_silent_tool_is_not_cut(raw: RawClient) -> None:
    """A command that says nothing for several times the watchdog's patience ends as it would anywhere."""
    session = await raw.new_session()
    turn = await raw.turn(session, "[[bash: sleep 3; echo slept]][[then]][[say: good morning]]")
    (result,) = plain(turn, "agent.tool_result")
    assert (result["is_error"], result["content"][0]["text"]) == (False, "slept\n")
    assert text_of(turn) == "good morning"
    assert "session.error" not in types_of(turn)
    check_events(turn)


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


@pytest.mark.parametrize(
    "script",
    ["[[bash: sleep 600]]", "[[hang]]", "[[slow: 900x0.1 tick]]"],
    ids=["tool", "silent model", "endless text"],
)
async def test_the_upper_bound_ends_a_turn_honestly(raw: RawClient, script: str) -> None:
    """At the bound: everything open is closed, one error that names the setting, idle; the session lives."""
    session = await raw.new_session()
    turn = await raw.turn(session, script, seconds=MAX_SECONDS + 20)
    (error,) = plain(turn, "session.error")
    assert "SIDECAR_TURN_MAX_SECONDS" in error["error"]["message"]
    assert error["error"]["retry_status"] == {"type": "exhausted"}
    assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
    check_events(turn)
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"


async def test_an_answer_that_is_no_stream_is_bounded(raw: RawClient) -> None:
    """A gateway that answers a streaming call with JSON: retried, and never beyond the upper bound."""
    session = await raw.new_session()
    turn = await raw.turn(session, "[[non-sse]] [[say: lost]]", seconds=MAX_SECONDS + 20)
    assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
    assert len(plain(turn, "session.error")) == 1
    assert not plain(turn, "agent.message")
    check_events(turn)
    assert text_of(await raw.turn(session, "[[say: alive]]")) == "alive"
