"""What a request body may be and do: its size by route, its time, all bodies together."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.http.bodies import aside
from tests.chaos.hostile_bodies import KINDS, Kind, new_session, send
from tests.chaos.target import Target, read_answer
from tests.fakes.small_sidecar import fake_child
from tests.harness import (
    GATEWAY_KEY,
    RUNTIME_KEY,
    http_client,
    make_settings,
    sidecar_for,
    user_message,
)
from tests.waiting import patience


@contextlib.asynccontextmanager
async def served(
    root: Path, *, storage: dict[str, Any] | None = None, **http: Any
) -> AsyncIterator[tuple[RunningSidecar, Target]]:
    """A sidecar without a usable child."""
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    child = {"binary": fake_child(root, "child_never_ready.py"), "drain_seconds": 0.1}
    settings = make_settings(root / "data", demo.url, http=http, child=child, storage=storage or {})
    try:
        async with sidecar_for(settings, is_ready=False) as sidecar:
            await sidecar.catalogue.refresh()
            yield sidecar, Target(sidecar.url, RUNTIME_KEY)
    finally:
        await demo.close()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_body_is_refused_before_it_becomes_large(tmp_path: Path, kind: Kind) -> None:
    """Each is 60 MB in the end; the answer comes when a few are there, in the envelope."""
    async with served(tmp_path) as (_, target):
        session = await new_session(target)
        result = await send(target, kind, session=session, size=60_000_000)
        assert result.answer.status in {400, 413}
        assert result.answer.is_enveloped
        assert result.sent_bytes < 20_000_000  # what the sockets between us hold is sent at once


async def test_routes_without_content_take_a_megabyte(tmp_path: Path) -> None:
    """1 MiB everywhere but where messages and files come in; there 32 MiB. The answer says how much."""
    async with served(tmp_path) as (_, target):
        session = await new_session(target)
        body = {"name": "e", "description": "x" * 1_100_000}
        answer = await target.call("POST", "/v1/environments", body)
        assert answer.status == 413
        assert "1048576" in answer.json["error"]["message"]
        events = {"events": [user_message("x" * 1_100_000)]}
        assert (await target.call("POST", f"/v1/sessions/{session}/events", events)).status == 200


@pytest.mark.parametrize("sent", [b"", b'{"name":'], ids=["nothing", "the beginning"])
async def test_a_body_that_stops_is_given_up(tmp_path: Path, sent: bytes) -> None:
    """Its connection does not stay open with it."""
    async with served(tmp_path, body_silence_seconds=0.2) as (_, target), target.open() as (r, w):
        w.write(target.head("POST", "/v1/agents", "content-length: 100") + sent)
        answer = await read_answer(r)
        assert answer.status == 408
        assert answer.is_enveloped
        assert f"after {len(sent)} bytes" in answer.json["error"]["message"]


async def test_a_body_that_trickles_is_given_up(tmp_path: Path) -> None:
    """A byte now and then is no progress: on average it has to be 1 KiB per second."""
    async with served(tmp_path, body_silence_seconds=1.0) as (_, target), target.open() as (r, w):
        w.write(target.head("POST", "/v1/agents", "content-length: 100000"))
        answer = asyncio.create_task(read_answer(r))
        while not answer.done():
            with contextlib.suppress(ConnectionError):
                w.write(b" ")
                await w.drain()
            await asyncio.sleep(0.05)
        assert (await answer).status == 408


async def test_bodies_share_a_budget(tmp_path: Path) -> None:
    """Large bodies beyond it are answered with 529 and when to come again; small ones pass."""
    async with served(tmp_path, bodies_in_flight_bytes=1_000_000) as (_, target):
        session = await new_session(target)
        path = f"/v1/sessions/{session}/events"
        async with target.open() as (_r, w):
            w.write(target.head("POST", path, "content-length: 900000") + b"{")
            large = {"events": [user_message("x" * 200_000)]}
            async with patience():
                while (answer := await target.call("POST", path, large)).status == 200:
                    await asyncio.sleep(0.01)  # the other request is not there yet
            assert answer.status == 529
            assert answer.is_enveloped
            assert int(answer.headers["retry-after"]) >= 1
            small = {"events": [user_message("x" * 1000)]}
            assert (await target.call("POST", path, small)).status == 200
        async with patience():
            while (await target.call("POST", path, large)).status != 200:
                await asyncio.sleep(0.01)  # the other request has gone; so has what it held


async def test_event_streams_have_a_bound(tmp_path: Path) -> None:
    """Above it 429 with retry-after; one that is closed makes room."""
    async with served(tmp_path, max_streams=1) as (_, target):
        path = f"/v1/sessions/{await new_session(target)}/events/stream"
        async with target.open() as (reader, writer):
            writer.write(target.head("GET", path))
            await reader.readuntil(b": stream open")
            answer = await target.call("GET", path)
            assert answer.status == 429
            assert answer.is_enveloped
            assert int(answer.headers["retry-after"]) >= 1
        async with target.open() as (reader, writer), patience():
            while True:
                writer.write(target.head("GET", path))
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 200"):
                    break
                await reader.readuntil(b"}")  # the other stream's end is not noticed yet
                await reader.readuntil(b"}")
                await asyncio.sleep(0.01)


async def test_a_long_list_is_the_same_in_pieces(tmp_path: Path) -> None:
    """One large event, several pieces, one small list: GET is JSON, and HEAD says how long it is."""
    async with served(tmp_path) as (sidecar, target):
        session = await new_session(target)
        path = f"/v1/sessions/{session}/events"
        async with http_client(sidecar.url) as client:
            for size in (10, 1_000_000, 300_000, 300_000):
                body = {"events": [user_message("x" * size)]}
                assert (await target.call("POST", path, body)).status == 200
                for query in ("", "?limit=1", "?order=desc"):
                    async with client.get(path + query) as answer:
                        length = len(await answer.read())
                        assert (await answer.json())["data"]
                    async with client.head(path + query) as answer:
                        assert answer.status == 200
                        assert int(answer.headers["content-length"]) == length


async def test_what_is_large_is_parsed_in_a_thread() -> None:
    """The loop serves others meanwhile; what is small is not worth the way."""
    assert await aside(1_000_000, threading.get_ident) != threading.get_ident()
    assert await aside(1000, threading.get_ident) == threading.get_ident()
