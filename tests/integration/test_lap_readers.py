"""What each of LAP's readers gets from the event stream, byte by byte."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.store.interface import Connection
from tests.event_rules import check_events
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, make_settings, sidecar_for, types_of
from tests.lap_client import HEADERS, TERMINAL, Lap, LapStream, shown
from tests.waiting import PATIENCE_SECONDS, patience, until


@pytest.fixture(scope="module")
async def sidecar(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningSidecar]:
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    settings = make_settings(
        tmp_path_factory.mktemp("lap"),
        demo.url,
        http={
            "heartbeat_seconds": 0.2,
            "bookkeeping_events": False,
            "late_reader_seconds": PATIENCE_SECONDS,
            "replay_pause_seconds": 1.5,
        },
        turn={"interrupt_wait_seconds": PATIENCE_SECONDS},
        child={"drain_seconds": 1.0},
    )
    async with sidecar_for(settings) as running:
        yield running
    await demo.close()


@pytest.fixture
async def lap(sidecar: RunningSidecar) -> AsyncIterator[Lap]:
    async with aiohttp.ClientSession(sidecar.url, headers=HEADERS) as http:
        yield Lap(sidecar, http)


async def test_the_drain_gets_the_whole_turn_though_it_opens_after_the_prompt(lap: Lap) -> None:
    """Opened after the POST was answered: every event of the turn from its start to its one terminal."""
    session = await lap.new_session()
    seen = await lap.drained_turn(session, "[[bash: echo hi]] [[then]] [[say: done]]")
    assert types_of(seen)[:2] == ["user.message", "session.status_running"]
    assert [event["id"] for event in seen] == [e["id"] for e in await lap.raw.events(session)]
    (result,) = [event for event in seen if event["type"] == "agent.tool_result"]
    assert "hi" in result["output"]
    assert result["id"] != result["tool_use_id"]
    assert shown(seen) == "done"


async def test_the_drain_gets_a_turn_that_is_already_over(lap: Lap) -> None:
    """A turn faster than the reader is replayed whole, so that LAP does not wait indefinitely."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[say: quick]]")
    await lap.turn_over(session)
    async with lap.stream(session) as stream:
        seen = await stream.drain()
    assert shown(seen) == "quick"
    assert types_of(seen)[0] == "user.message"


async def test_events_that_lap_shows_nothing_of_are_not_sent(lap: Lap) -> None:
    """Two fifths of a log are spans, usage and the one thread's states: LAP gets them in neither list nor
    stream; official SDKs do, and so does who asks by type, or for previews."""
    session = await lap.new_session()
    seen = await lap.drained_turn(session, "[[bash: true]] [[then]] [[say: ok]]")
    assert types_of(seen) == [
        "user.message",
        "session.status_running",
        "agent.tool_use",
        "agent.tool_result",
        "agent.message",
        "session.status_idle",
    ]
    assert await lap.raw.events(session) == seen
    path = f"/v1/sessions/{session}/events"
    async with lap.http.get(path, headers={"x-stainless-lang": "js"}) as response:
        everything = (await response.json())["data"]
    check_events(everything)
    assert [event for event in everything if event in seen] == seen
    usage = await lap.raw.call("GET", f"{path}?types[]=session.usage")
    assert types_of(usage["data"]) == ["session.usage"]
    previews = await lap.raw.call("GET", f"{path}?event_deltas[]=agent.message")
    assert previews["data"] == everything
    async with lap.stream(session, "types[]=span.model_request_end&types[]=session.usage") as some:
        await lap.raw.send(session, "[[say: more]]")
        assert types_of(await some.until("session.usage")) == [
            "span.model_request_end",
            "session.usage",
        ]


async def test_running_is_stored_before_the_prompt_is_answered(lap: Lap) -> None:
    """LAP's reconciliation must not find the old idle as the last state after a POST."""
    session = await lap.new_session()
    await lap.drained_turn(session, "[[say: one]]")
    (accepted,) = await lap.raw.send(session, "[[hang]]")
    events = await lap.raw.events(session)
    states = [e["type"] for e in events if e["type"].startswith("session.status_")]
    assert states == ["session.status_running", "session.status_idle", "session.status_running"]
    assert accepted in events
    await lap.raw.interrupt(session)


async def test_the_channel_reader_gets_its_own_turn_and_nothing_older(lap: Lap) -> None:
    """Opened before each POST and read only after the turn: each time exactly that turn."""
    session = await lap.new_session()
    for number in (1, 2, 3):
        async with lap.stream(session) as channel:
            drained = await lap.drained_turn(session, f"[[say: answer {number}]]")
            seen = await channel.drain()
        assert shown(seen) == f"answer {number}"
        assert seen == drained
        assert types_of(seen).count("session.status_idle") == 1
        await lap.no_stream_open(session)


async def test_late_readers_get_the_finished_turn_again(lap: Lap) -> None:
    """After the drain a second reader (a sub-agent's collector) is given the same turn, and a third one: a
    page may have been the second."""
    session = await lap.new_session()
    first = await lap.drained_turn(session, "[[say: for both]]")
    await lap.no_stream_open(session)
    async with lap.stream(session) as late:
        assert await late.drain() == first
    await lap.no_stream_open(session)
    async with lap.stream(session) as third:
        assert await third.drain() == first


async def test_the_drain_gets_a_fast_turn_though_a_page_was_open(lap: Lap) -> None:
    """Another stream was open when the turn began, and read it to its end before the drain came."""
    session = await lap.new_session()
    async with lap.stream(session) as page:
        await lap.raw.send(session, "[[say: quick]]")
        seen = await page.drain()
        async with lap.stream(session) as drain:
            assert await drain.drain() == seen


async def test_a_prompt_drops_a_replay_that_waits(lap: Lap) -> None:
    """A reader that opens before its prompt, soon after a turn that was read, gets its own turn only."""
    session = await lap.new_session()
    await lap.drained_turn(session, "[[say: before]]")
    async with lap.stream(session) as channel:
        drained = await lap.drained_turn(session, "[[say: after]]")
        assert await channel.drain() == drained
    assert shown(drained) == "after"


@pytest.mark.parametrize("seed", range(2))
async def test_readers_in_any_order(lap: Lap, seed: int) -> None:
    """Prompts of LAP's programs one after the other, with pages that come and go: each reader gets its own
    turn, whole. Their orders are drawn; `tests/unit/test_replay_policy.py` draws many more."""
    chance = random.Random(seed)
    session = await lap.new_session()
    async with AsyncExitStack() as pages:
        for number in range(4):
            text = f"answer {number} of {seed}"
            program = chance.choice(["drain", "channel", "late"])
            async with AsyncExitStack() as own:
                readers = []
                if program == "channel":
                    readers.append(await own.enter_async_context(lap.stream(session)))
                await lap.raw.send(session, f"[[slow: 3x0.05 .]][[say: {text}]]")
                if chance.random() < 0.5:
                    await pages.enter_async_context(lap.stream(session))
                if chance.random() < 0.5:
                    await lap.turn_over(session)
                async with lap.stream(session) as drain:
                    drained = await drain.drain()
                await lap.turn_over(session)
                if program == "late":
                    readers.append(await own.enter_async_context(lap.stream(session)))
                for reader in readers:
                    assert await reader.drain() == drained, program
            assert text in shown(drained)
            assert types_of(drained).count("user.message") == 1
            if chance.random() < 0.3:
                await pages.aclose()


async def test_an_official_sdk_never_gets_a_finished_turn(lap: Lap) -> None:
    """A stream with the SDKs' telemetry header is live only: its loop would stop at an old idle."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[say: over]]")
    await lap.turn_over(session)
    path = f"/v1/sessions/{session}/events/stream"
    async with lap.http.get(path, headers={"x-stainless-lang": "python"}) as response:
        stream = LapStream(response)
        assert await stream.heard_heartbeats(2) == []
        await lap.raw.send(session, "[[say: now]]")
        assert shown(await stream.drain()) == "now"


async def test_the_browser_stays_on_one_stream_over_many_turns(lap: Lap) -> None:
    """The stream stays open after idle, carries heartbeats as comments, and brings the next turn."""
    session = await lap.new_session()
    async with lap.stream(session) as browser:
        await lap.raw.send(session, "[[say: first]]")
        assert shown(await browser.drain()) == "first"
        assert await browser.heard_heartbeats(3) == []
        await lap.raw.send(session, "[[say: second]]")
        assert shown(await browser.drain()) == "second"


async def test_frames_are_ascii_and_texts_of_steps_do_not_run_together(lap: Lap) -> None:
    """Text of any script is escaped, and the second text of a turn begins with a blank line."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[say: grüße 🦄]] [[bash: true]] [[then]] [[say: 漢字]]")
    async with lap.stream(session) as stream:
        seen = await stream.drain()
        assert all(byte < 128 for chunk in stream.chunks for byte in chunk)
    assert shown(seen) == "grüße 🦄\n\n漢字"


async def test_nul_reaches_nobody(lap: Lap, sidecar: RunningSidecar) -> None:
    """A tool's binary output, a message with NUL, a row of an earlier version: PostgreSQL's JSONB takes
    every event of stream and list."""
    session = await lap.new_session()
    await lap.raw.send(session, "before\0after [[bash: printf 'one\\000two']] [[then]] [[say: ok]]")
    async with lap.stream(session) as stream:
        seen = await stream.drain()
        assert b"\\u0000" not in b"".join(stream.chunks)
    (result,) = [event for event in seen if event["type"] == "agent.tool_result"]
    assert result["output"] == result["content"][0]["text"] == "one\ufffdtwo"
    assert seen[0]["content"][0]["text"].startswith("before\ufffdafter")

    def spoil(connection: Connection) -> None:
        connection.execute(
            "UPDATE events SET body = replace(body, ?, ?) WHERE session_id = ?",
            ("\\ufffd", "\\u0000\\ud83d", session),
        )

    await sidecar.database.write(spoil)
    await lap.no_stream_open(session)
    async with lap.stream(session) as late:
        assert (await late.drain())[0]["content"][0]["text"].startswith("before\ufffd\ufffdafter")
        assert b"\\u0000" not in b"".join(late.chunks)
    async with lap.http.get(f"/v1/sessions/{session}/events") as response:
        listed = await response.text()
    assert "\\u0000" not in listed
    assert "one\ufffd\ufffdtwo" in [event.get("output") for event in json.loads(listed)["data"]]


async def test_an_interrupt_is_answered_with_one_terminal(lap: Lap) -> None:
    """LAP's stop button, and the next prompt at once behind it: each turn has one terminal."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[slow: 300x0.1 tick]]")
    async with lap.stream(session) as stream:
        await lap.model_asked(session)
        await lap.raw.interrupt(session)
        await lap.raw.send(session, "[[say: next]]")
        await stream.drain()
        assert shown(await stream.drain()) == "next"
    states = [e["type"] for e in await lap.raw.events(session) if e["type"] in TERMINAL]
    assert states == ["session.status_idle"] * 2


async def test_the_prompt_behind_an_interrupt_is_read_by_its_own_drain(lap: Lap) -> None:
    """The answer to the interrupt says that the turn is over: a stream opened after the next POST has
    nothing of the interrupted turn."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[slow: 300x0.1 tick]]")
    await lap.model_asked(session)
    await lap.raw.interrupt(session)
    assert await lap.raw.status(session) == "idle"
    seen = await lap.drained_turn(session, "[[say: next]]")
    assert shown(seen) == "next"
    assert "user.interrupt" not in types_of(seen)


async def test_a_failed_turn_ends_in_an_error_before_idle(lap: Lap) -> None:
    """`session.error` reaches LAP as the first terminal, with a message it can show."""
    session = await lap.new_session()
    seen = await lap.drained_turn(session, "[[error: 401]]")
    assert seen[-1]["type"] == "session.error"
    assert isinstance(seen[-1]["error"]["message"], str)


async def test_a_stalled_reader_is_not_cut_and_slows_nobody(
    lap: Lap, sidecar: RunningSidecar
) -> None:
    """One reader takes nothing for five megabytes of events: others are served at once, it gets all later."""
    session = await lap.new_session()
    count = 800
    address = urlsplit(sidecar.url)
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(stalled, (address.hostname, address.port))
        request = f"GET /v1/sessions/{session}/events/stream HTTP/1.1\r\nhost: x\r\n"
        request += f"x-api-key: {RUNTIME_KEY}\r\n\r\n"
        await loop.sock_sendall(stalled, request.encode())
        await until(lambda: sidecar.log.reader_count(session))
        async with lap.stream(session) as quick:
            arriving = quick.events()
            for number in range(count):
                metadata = {f"k{i}": f"{number}-" + "x" * 500 for i in range(14)}
                await lap.raw.call("POST", f"/v1/sessions/{session}", {"metadata": metadata})
                async with patience():
                    event = await anext(arriving)
                assert event["metadata"]["k0"].startswith(f"{number}-")
        received = bytearray()
        async with patience():
            while received.count(b"event: session.updated") < count:
                chunk = await loop.sock_recv(stalled, 1 << 20)
                assert chunk, "the stalled reader was cut"
                received += chunk
    finally:
        stalled.close()
    assert len(received) > 5_000_000
    last = received.rfind(b'"k0":"')
    assert received[last + 6 : last + 10] == b"799-"
