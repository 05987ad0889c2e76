"""Connections of clients that do not ask, ask too much, or do not read."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from sidecar.http.connections import RESERVE, BoundedServer, ConnectionBounds
from sidecar.http.middleware import request_context
from sidecar.http.runner import Runner
from sidecar.process_limits import raise_descriptor_limit
from tests.chaos.half_headers import HALF, end_of, silent_clients
from tests.chaos.slow_readers import unread
from tests.chaos.target import Target, read_answer
from tests.waiting import patience, until

LONG = 3600.0


class Served:
    """A small server with our runner; `/wait` answers when `go` is set, `/large` with 8 MB in pieces."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.waiting = 0
        self.target = Target("")
        self.server: BoundedServer

    async def wait(self, _request: web.Request) -> web.Response:
        """Answer when `go` is set."""
        self.waiting += 1
        await self.go.wait()
        return web.Response(text="done")

    async def live(self, _request: web.Request) -> web.Response:
        """Answer."""
        return web.Response(text="live")

    async def large(self, request: web.Request) -> web.StreamResponse:
        """Answer 8 MB."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(128):
            await response.write(b"x" * 65_536)
        return response


@asynccontextmanager
async def served(
    *, most: int = 4, header_seconds: float = LONG, stall_seconds: float = LONG
) -> AsyncIterator[Served]:
    """Run it."""
    this = Served()
    app = web.Application(middlewares=[request_context])
    app.add_routes(
        [web.get("/wait", this.wait), web.get("/livez", this.live), web.get("/large", this.large)]
    )
    bounds = ConnectionBounds(most, header_seconds, stall_seconds)
    runner = Runner(app, bounds, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    this.server = runner.bounded_server
    this.target = Target(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield this
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("sent", [b"", b"G", HALF], ids=["nothing", "a byte", "half a header"])
async def test_a_header_has_its_time(sent: bytes) -> None:
    """A client that has begun gets a 408; one that sent nothing is only closed."""
    async with served(header_seconds=0.2) as this, silent_clients(this.target, 3, sent) as clients:
        answers = [await end_of(client) for client in clients]
        assert [answer and answer.status for answer in answers] == [408 if sent else None] * 3
        assert all(answer is None or answer.is_enveloped for answer in answers)
        assert this.server.ended["header"] == 3


async def test_the_next_header_of_a_connection_has_its_time_too() -> None:
    """A connection that was used and is idle stays open; one that has begun to ask again does not."""
    async with served(header_seconds=0.3) as this, this.target.open() as (reader, writer):
        for _ in range(3):
            writer.write(this.target.head("GET", "/livez"))
            assert (await read_answer(reader)).status == 200
            await asyncio.sleep(0.4)  # longer than a header may take
        writer.write(HALF)
        answer = await end_of((reader, writer))
        assert answer is not None
        assert answer.status == 408


async def test_clients_that_send_nothing_shut_no_one_out() -> None:
    """However many there are: a new connection takes the place of the oldest of them."""
    async with served() as this, silent_clients(this.target, 300):
        await until(lambda: this.server.open_connections >= 4 + RESERVE)
        for _ in range(10):
            assert (await this.target.call("GET", "/livez")).status == 200
        assert this.server.open_connections <= 4 + RESERVE
        assert this.server.ended["evicted"] >= 300 - 4 - RESERVE


async def test_requests_have_a_bound_and_probes_get_in() -> None:
    """Above it 503 in the envelope with retry-after; probes are answered beyond it."""
    async with served() as this, AsyncExitStack() as stack:
        for _ in range(4):
            _, writer = await stack.enter_async_context(this.target.open())
            writer.write(this.target.head("GET", "/wait"))
        await until(lambda: this.waiting == 4)
        refused = await this.target.call("GET", "/wait")
        assert refused.status == 503
        assert refused.is_enveloped
        assert int(refused.headers["retry-after"]) >= 1
        assert (await this.target.call("GET", "/livez")).status == 200
        this.go.set()
        await until(lambda: this.server.answering == 0)
        assert (await this.target.call("GET", "/wait")).status == 200


async def test_where_all_are_at_work_a_new_connection_is_told() -> None:
    """There is nothing to give up for it: it gets 503 before it has asked, and is closed."""
    async with served(most=1) as this, AsyncExitStack() as stack:
        # Probes may use the reserve; here they take all of it.
        this.server.bounds = ConnectionBounds(1, LONG, LONG, exempt={"/wait"})
        for _ in range(1 + RESERVE):
            _, writer = await stack.enter_async_context(this.target.open())
            writer.write(this.target.head("GET", "/wait"))
        await until(lambda: this.waiting == 1 + RESERVE)
        answer = await this.target.call("GET", "/livez")
        assert answer.status == 503
        assert answer.is_enveloped
        this.go.set()
        await until(lambda: this.server.answering == 0)
        assert (await this.target.call("GET", "/livez")).status == 200


async def test_an_answer_that_is_not_read_is_cut() -> None:
    """Its handler ends and its memory is free; an answer that is read slowly is not cut."""
    async with (
        served(stall_seconds=1.0) as this,
        this.target.open() as (reader, writer),
        unread(this.target, "/large", 1),
    ):
        writer.write(this.target.head("GET", "/large"))
        count = 0
        async with patience():
            while count < 8_000_000:
                count += len(await reader.readexactly(100_000))
                await asyncio.sleep(0.03)
        await until(lambda: this.server.ended["stalled"] == 1)
        await until(lambda: this.server.answering == 0)


@pytest.mark.parametrize("value", [b"200-ok", b"\xff\xfe", b"100-continue, x", b"\xc3\xa9"])
async def test_an_odd_expectation_is_refused_in_the_envelope(value: bytes) -> None:
    """aiohttp answers it before any middleware, as text, and with a traceback when it is no text."""
    async with served() as this, this.target.open() as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nexpect: " + value + b"\r\n\r\n")
        answer = await read_answer(reader)
        assert answer.status == 417
        assert answer.is_enveloped


async def test_a_client_may_wait_for_100_continue() -> None:
    """The usual expectation works."""
    async with served() as this, this.target.open() as (reader, writer):
        head = this.target.head("GET", "/livez", "expect: 100-Continue", "content-length: 2")
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"{}")
        assert (await read_answer(reader)).status == 200


def test_the_bound_follows_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the usual 1024 there is room for fewer connections than configured; others need some."""
    from sidecar.config import HttpSettings  # only here

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 1024))
    bounds = ConnectionBounds.of(HttpSettings())
    assert 300 < bounds.most < (1024 - 200) / 2
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (65_536, 65_536))
    assert ConnectionBounds.of(HttpSettings()).most == HttpSettings().max_connections


def test_the_soft_limit_is_raised() -> None:
    """To the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
