"""opencode's own event streams: read from opencode once, for any number of readers here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.fakes.small_sidecar import small_settings
from tests.harness import GATEWAY_KEY, http_client, sidecar_for

BACKLOG = 2_000_000
SECONDS = 60


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[RunningSidecar]:
    """A sidecar over a child whose events the test chooses."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = small_settings(tmp_path, gateway.url)
    http = settings.http.model_copy(update={"native_backlog_bytes": BACKLOG})
    async with sidecar_for(settings.model_copy(update={"http": http})) as running:
        yield running
    await gateway.close()


class Child:
    """The fake in the place of opencode."""

    def __init__(self, sidecar: RunningSidecar, session: aiohttp.ClientSession) -> None:
        client = sidecar.supervisor.client
        assert client is not None
        self._url = client.base_url
        self._session = session

    async def emit(self, directory: str, **properties: Any) -> None:
        """Send an event to all who read the child's events."""
        payload = {"id": "evt_1", "type": "message.part.delta", "properties": properties}
        event = {"directory": directory, "project": "global", "payload": payload}
        async with self._session.post(
            f"{self._url}/test/emit",
            data=json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(),
            headers={"authorization": "x"},
        ) as answer:
            assert answer.status == 200

    async def streams(self) -> int:
        """Return how many streams were opened at it."""
        headers = {"authorization": "x"}
        async with self._session.get(f"{self._url}/test/calls", headers=headers) as answer:
            return list(await answer.json()).count("GET /global/event")


@pytest.fixture
async def child(sidecar: RunningSidecar) -> AsyncIterator[Child]:
    async with aiohttp.ClientSession() as session:
        yield Child(sidecar, session)


@pytest.fixture
async def http(sidecar: RunningSidecar) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_client(sidecar.url) as session:
        yield session


async def events(stream: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    """Read the next events but heartbeats."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < count:
            line = await stream.content.readline()
            assert line, f"the stream ended after {found}"
            if line.startswith(b"data:") and b"server.heartbeat" not in line:
                found.append(json.loads(line[5:]))
    return found


async def cut_readers(sidecar: RunningSidecar) -> float:
    """Return how many readers were cut, from the metrics."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sidecar.admin_url}/metrics") as answer,
    ):
        text = await answer.text()
    (value,) = re.findall(r"^opencode_sidecar_native_streams_cut_total (\S+)$", text, re.MULTILINE)
    return float(value)


async def test_all_readers_have_every_event_and_opencode_sends_it_once(
    http: aiohttp.ClientSession, child: Child
) -> None:
    """Each begins with `server.connected`."""
    async with http.get("/global/event") as first, http.get("/global/event") as second:
        for stream in (first, second):
            (greeting,) = await events(stream, 1)
            assert greeting["payload"]["type"] == "server.connected"
        for number in range(3):
            await child.emit("/d", number=number)
        for stream in (first, second):
            numbers = [e["payload"]["properties"]["number"] for e in await events(stream, 3)]
            assert numbers == [0, 1, 2]
    assert await child.streams() == 1  # the sidecar's own


async def test_a_directorys_stream_has_the_payloads_of_that_directory(
    http: aiohttp.ClientSession, child: Child, tmp_path: Path
) -> None:
    """As opencode wrote them, byte for byte; text that looks like the frame's own members changes nothing."""
    own = str((tmp_path / "data" / "workspaces" / "native").resolve())
    async with http.get("/event") as stream:
        (greeting,) = await events(stream, 1)
        assert greeting["type"] == "server.connected"
        said = '"payload":{"type":"x"}, "directory":"/elsewhere" ü \u2028'
        await child.emit("/elsewhere", text=said)
        for number in range(2):  # the second without being read
            await child.emit(own, text=said, number=number)
            (event,) = await events(stream, 1)
            assert event == {
                "id": "evt_1",
                "type": "message.part.delta",
                "properties": {"text": said, "number": number},
            }


async def test_a_reader_that_does_not_read_is_cut(
    http: aiohttp.ClientSession, child: Child, sidecar: RunningSidecar
) -> None:
    """What waits for it is bounded; another reader has every event."""
    size, count = 100_000, 400
    async with http.get("/global/event") as fast, http.get("/global/event") as slow:
        await events(fast, 1)
        # aiohttp reads ahead; a paused transport does not.
        connection = slow.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.pause_reading()
        for number in range(count):
            await child.emit("/d", number=number, text="x" * size)
            (event,) = await events(fast, 1)
            assert event["payload"]["properties"]["number"] == number
            if cut := await cut_readers(sidecar):
                break
        assert cut == 1
        connection.transport.resume_reading()
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(SECONDS):
                await slow.read()
        await child.emit("/d", number=-1)
        (event,) = await events(fast, 1)
        assert event["payload"]["properties"]["number"] == -1
