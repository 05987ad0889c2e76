"""The readers of LAP's control plane: what each gets from the event stream, byte by byte.

LAP decodes UTF-8 per network chunk, dies of anything that is not a JSON object with a type, never
reconnects and has no time-out; each of its readers opens the stream at another moment of a turn.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from sidecar.app import Sidecar
from sidecar.demo_gateway import DemoGateway
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, make_settings, sidecar_for, types_of
from tests.raw_client import RawClient

HEADERS = {
    "x-api-key": RUNTIME_KEY,
    "content-type": "application/json",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "managed-agents-2026-04-01",
}
TERMINAL = ("session.status_idle", "session.error")


class LapStream:
    """LAP's parser on an open response. Nothing is read before `drain` or `until` is called."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._pending = ""
        self.comments = 0
        self.chunks: list[bytes] = []

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield events as LAP sees them."""
        async for chunk in self._response.content.iter_any():
            self.chunks.append(chunk)
            self._pending += chunk.decode("utf-8")  # per chunk: a split character is fatal
            while "\n\n" in self._pending:
                frame, self._pending = self._pending.split("\n\n", 1)
                if (event := self._parse(frame)) is not None:
                    yield event

    async def until(self, *types: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Read to the first event of one of these types."""
        seen = []
        async with asyncio.timeout(seconds):
            async for event in self.events():
                seen.append(event)
                if event["type"] in types:
                    return seen
        raise AssertionError(f"the stream ended after {types_of(seen)}")

    async def drain(self) -> list[dict[str, Any]]:
        """Read to the end of a turn."""
        return await self.until(*TERMINAL)

    async def heard_heartbeats(self, count: int, seconds: float = 10) -> list[dict[str, Any]]:
        """Read until so many comments have come; return the events among them."""
        seen: list[dict[str, Any]] = []
        target = self.comments + count

        async def read() -> None:
            async for event in self.events():
                seen.append(event)  # noqa: PERF401  # what came before the cancellation counts

        reading = asyncio.create_task(read())
        try:
            async with asyncio.timeout(seconds):
                while self.comments < target:
                    assert not reading.done(), "the stream ended"
                    await asyncio.sleep(0.02)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return seen

    def _parse(self, frame: str) -> dict[str, Any] | None:
        data = []
        for line in frame.split("\n"):
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("data:"):
                data.append(line.removeprefix("data:").lstrip())
        if not data:
            return None
        event = json.loads("\n".join(data))
        assert isinstance(event["type"], str)
        assert isinstance(event["id"], str)
        return dict(event)


class Lap:
    """The calls of the control plane."""

    def __init__(self, sidecar: Sidecar, http: aiohttp.ClientSession) -> None:
        self._sidecar = sidecar
        self.http = http
        self.raw = RawClient(http)

    async def new_session(self) -> str:
        """Create agent, environment and session with the bodies that LAP sends."""
        agent = await self.raw.call(
            "POST",
            "/v1/agents",
            {
                "name": "helper",
                "model": {"id": "openai/gpt-4o"},
                "system": "",
                "tools": [{"type": "agent_toolset_20260401"}],
                "metadata": {"local_agent_id": "l1", "source": "litellm-agent-platform"},
            },
        )
        place = await self.raw.call(
            "POST",
            "/v1/environments",
            {
                "name": "helper environment",
                "config": {"type": "cloud", "networking": {"type": "unrestricted"}},
            },
        )
        session = await self.raw.call(
            "POST",
            "/v1/sessions",
            {
                "agent": agent["id"],
                "environment_id": place["id"],
                "title": "helper session",
                "metadata": {"local_session_id": "s1", "initial_prompt": "hello"},
            },
        )
        return str(session["id"])

    @asynccontextmanager
    async def stream(self, session: str) -> AsyncIterator[LapStream]:
        """Open the stream and read nothing yet."""
        async with self.http.get(
            f"/v1/sessions/{session}/events/stream",
            headers={"accept": "text/event-stream"},
            timeout=aiohttp.ClientTimeout(),
        ) as response:
            assert response.status == 200
            yield LapStream(response)

    async def drained_turn(self, session: str, text: str) -> list[dict[str, Any]]:
        """POST the prompt, then open the stream and read it to the end of the turn."""
        await self.raw.send(session, text)
        async with self.stream(session) as stream:
            return await stream.drain()

    async def turn_over(self, session: str) -> None:
        """Wait for the end of the turn without opening a stream."""
        actor = self._sidecar.turns.peek(session)
        if actor is not None and actor.turn is not None:
            await actor.turn.done.wait()
        assert await self.raw.status(session) == "idle"

    async def no_stream_open(self, session: str) -> None:
        """Wait until the sidecar has noticed that the session's readers are gone."""
        async with asyncio.timeout(5):
            while self._sidecar.log.reader_count(session):
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
async def sidecar(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sidecar]:
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    settings = make_settings(
        tmp_path_factory.mktemp("lap"),
        demo.url,
        http={"heartbeat_seconds": 0.2},
        child={"drain_seconds": 1.0},
    )
    async with sidecar_for(settings) as running:
        yield running
    await demo.close()


@pytest.fixture
async def lap(sidecar: Sidecar) -> AsyncIterator[Lap]:
    async with aiohttp.ClientSession(sidecar.url, headers=HEADERS) as http:
        yield Lap(sidecar, http)


def shown(events: list[dict[str, Any]]) -> str:
    """Return the text that LAP shows: `text` fields joined without a separator."""
    return "".join(event["text"] for event in events if event["type"] == "agent.message")


async def test_the_drain_gets_the_whole_turn_though_it_opens_after_the_prompt(lap: Lap) -> None:
    """Opened after the POST was answered: every event of the turn from its start to its one terminal."""
    session = await lap.new_session()
    seen = await lap.drained_turn(session, "[[bash: echo hi]] [[then]] [[say: done]]")
    assert types_of(seen)[:3] == [
        "user.message",
        "session.status_running",
        "session.thread_status_running",
    ]
    assert [event["id"] for event in seen] == [e["id"] for e in await lap.raw.events(session)]
    (result,) = [event for event in seen if event["type"] == "agent.tool_result"]
    assert "hi" in result["output"]
    assert result["id"] != result["tool_use_id"]
    assert shown(seen) == "done"


async def test_the_drain_gets_a_turn_that_is_already_over(lap: Lap) -> None:
    """A turn faster than the reader is replayed whole, so that LAP does not wait for ever."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[say: quick]]")
    await lap.turn_over(session)
    async with lap.stream(session) as stream:
        seen = await stream.drain()
    assert shown(seen) == "quick"
    assert types_of(seen)[0] == "user.message"


async def test_running_is_stored_before_the_prompt_is_answered(lap: Lap) -> None:
    """LAP's reconciliation must not find the old idle as the last state after a POST."""
    session = await lap.new_session()
    await lap.drained_turn(session, "[[say: one]]")
    (accepted,) = await lap.raw.send(session, "[[slow: 5x0.1 two]]")
    events = await lap.raw.events(session)
    states = [e["type"] for e in events if e["type"].startswith("session.status_")]
    assert states == ["session.status_running", "session.status_idle", "session.status_running"]
    assert accepted in events
    await lap.turn_over(session)


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


async def test_the_late_reader_gets_the_finished_turn_once_more(lap: Lap) -> None:
    """After the drain a second reader (a sub-agent's collector) is given the same turn; a third is not."""
    session = await lap.new_session()
    first = await lap.drained_turn(session, "[[say: for both]]")
    await lap.no_stream_open(session)
    async with lap.stream(session) as late:
        assert await late.drain() == first
    await lap.no_stream_open(session)
    async with lap.stream(session) as third:
        assert await third.heard_heartbeats(3) == []


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


async def test_an_interrupt_is_answered_with_one_terminal(lap: Lap) -> None:
    """LAP's stop button, and the next prompt at once behind it: each turn has one terminal."""
    session = await lap.new_session()
    await lap.raw.send(session, "[[slow: 300x0.1 tick]]")
    async with lap.stream(session) as stream:
        await stream.until("span.model_request_start")
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
    async with lap.stream(session) as stream:
        await stream.until("span.model_request_start")
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


async def test_a_stalled_reader_is_not_cut_and_slows_nobody(lap: Lap, sidecar: Sidecar) -> None:
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
        async with asyncio.timeout(5):
            while not sidecar.log.reader_count(session):
                await asyncio.sleep(0.01)
        async with lap.stream(session) as quick:
            arriving = quick.events()
            for number in range(count):
                metadata = {f"k{i}": f"{number}-" + "x" * 500 for i in range(14)}
                await lap.raw.call("POST", f"/v1/sessions/{session}", {"metadata": metadata})
                async with asyncio.timeout(5):
                    event = await anext(arriving)
                assert event["metadata"]["k0"].startswith(f"{number}-")
        received = bytearray()
        async with asyncio.timeout(30):
            while received.count(b"event: session.updated") < count:
                chunk = await loop.sock_recv(stalled, 1 << 20)
                assert chunk, "the stalled reader was cut"
                received += chunk
    finally:
        stalled.close()
    assert len(received) > 5_000_000
    last = received.rfind(b'"k0":"')
    assert received[last + 6 : last + 10] == b"799-"
