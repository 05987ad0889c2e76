"""The relay between a real client and the demo gateway, on real sockets."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from sidecar.config import GatewaySettings
from sidecar.demo_gateway import DemoGateway
from sidecar.gateway.relay import Relay
from sidecar.gateway.relay_events import RelayEvent
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted, Usage
from tests.waiting import PATIENCE_SECONDS, patience

KEY = "real-gateway-key-77"
MakeRelay = Callable[..., Awaitable[Relay]]


class Listener:
    """Keeps events and lets a test wait for the end of a request."""

    def __init__(self) -> None:
        self.events: list[RelayEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: RelayEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def ended(self) -> ModelRequestEnded:
        async with patience():
            while True:
                for event in self.events:
                    if isinstance(event, ModelRequestEnded):
                        return event
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def gateway() -> AsyncIterator[DemoGateway]:
    gateway = DemoGateway(key=KEY)
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def make_relay(gateway: DemoGateway) -> AsyncIterator[MakeRelay]:
    relays = []

    async def make(base_url: str = gateway.url, key: str = KEY, **settings: Any) -> Relay:
        relay = Relay(settings=GatewaySettings(**settings), base_url=base_url, api_key=key)
        await relay.start()
        relays.append(relay)
        return relay

    yield make
    for relay in relays:
        await relay.close()


@pytest.fixture
async def relay(make_relay: MakeRelay) -> Relay:
    return await make_relay()


@pytest.fixture
def listener(relay: Relay) -> Listener:
    listener = Listener()
    relay.listen(listener)
    return listener


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def chat(text: str, **more: Any) -> dict[str, Any]:
    options = {"include_usage": True}
    messages = [{"role": "user", "content": text}]
    return {
        "model": "openai/gpt-4o",
        "messages": messages,
        "stream": True,
        "stream_options": options,
        **more,
    }


def claude(text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages, **more}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("route", ["chat/completions", "messages"])
@pytest.mark.parametrize("stream", [True, False])
async def test_bytes_pass_untouched(
    gateway: DemoGateway, relay: Relay, http: aiohttp.ClientSession, route: str, stream: bool
) -> None:
    """Through the relay an answer has exactly the bytes the gateway sent, streamed or whole."""
    text = "[[think: hm]][[repeat: ha 5]][[say: grüße 你好]]"
    body = (chat if route.startswith("chat") else claude)(text, stream=stream)
    async with http.post(f"{gateway.url}/v1/{route}", json=body, headers=bearer(KEY)) as response:
        direct = await response.read()
        direct_type = response.headers["content-type"]
    headers = bearer(relay.token)
    async with http.post(f"{relay.url}/{route}", json=body, headers=headers) as response:
        assert response.status == 200
        assert response.headers["content-type"] == direct_type
        assert await response.read() == direct


async def test_the_key_is_swapped(
    gateway: DemoGateway, relay: Relay, http: aiohttp.ClientSession
) -> None:
    """The gateway sees the real key and never the token; other headers pass, and so do its own."""
    headers = {
        "x-api-key": relay.token,
        "x-session-id": "ses_1",
        "traceparent": "00-1-2-01",
        "anthropic-beta": "b1",
        "cookie": "a=b",
        "accept-encoding": "br",
    }
    body = claude("[[say: hi]]", stream=True)
    async with http.post(f"{relay.url}/messages?beta=true", json=body, headers=headers) as response:
        assert response.headers["x-litellm-model-group"] == "claude-sonnet-4-5"
        await response.read()
    seen = gateway.requests[-1]
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["x-session-id"] == "ses_1"
    assert seen.headers["traceparent"] == "00-1-2-01"
    assert seen.headers["anthropic-beta"] == "b1"
    assert seen.headers["accept-encoding"] == "identity"
    assert "cookie" not in seen.headers
    assert relay.token not in str(seen)
    assert seen.body == body


async def test_cookies_of_one_answer_do_not_go_with_the_next_request(
    make_relay: MakeRelay, http: aiohttp.ClientSession
) -> None:
    """A balancer in front of the gateway sets them; the requests of all sessions share the relay."""
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("cookie"))
        response = web.json_response({})
        response.set_cookie("sticky", "one")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app, host="localhost") as server:
        relay = await make_relay(f"http://localhost:{server.port}")
        for _ in range(2):
            async with http.post(
                f"{relay.url}/chat/completions",
                json=chat("hi", stream=False),
                headers=bearer(relay.token),
            ) as response:
                assert response.status == 200
                assert "set-cookie" not in response.headers
    assert seen == [None, None]


@pytest.mark.parametrize("token", ["", "wrong", KEY])
async def test_only_the_token_opens(
    gateway: DemoGateway, relay: Relay, http: aiohttp.ClientSession, token: str
) -> None:
    """Without this boot's token the answer is 401 and nothing reaches the gateway."""
    async with http.get(f"{relay.url}/models", headers=bearer(token)) as response:
        assert response.status == 401
    assert not gateway.requests


@pytest.mark.parametrize("path", ["model/info", "key/generate", "%2e%2e/key/generate", "files"])
async def test_only_model_routes_are_forwarded(
    gateway: DemoGateway, relay: Relay, http: aiohttp.ClientSession, path: str
) -> None:
    """The token does not open the gateway's administration."""
    async with http.get(f"{relay.url}/{path}", headers=bearer(relay.token)) as response:
        assert response.status == 404
    assert not gateway.requests


async def test_events_of_a_request(
    relay: Relay, listener: Listener, http: aiohttp.ClientSession
) -> None:
    """Start and end name the session, its parent and the model; the end has usage and times."""
    headers = bearer(relay.token) | {"x-session-id": "ses_2", "x-parent-session-id": "ses_1"}
    body = chat("[[cached: 7]][[repeat: ha 5]]")
    async with http.post(f"{relay.url}/chat/completions", json=body, headers=headers) as response:
        await response.read()
    ended = await listener.ended()
    started = listener.events[0]
    assert isinstance(started, ModelRequestStarted)
    assert started.request_id == ended.request_id
    for event in (started, ended):
        assert event.child_session_id == "ses_2"
        assert event.parent_session_id == "ses_1"
        assert event.model == "openai/gpt-4o"
    assert ended.status == 200
    assert ended.failure is None
    assert ended.first_byte_seconds is not None
    assert 0 < ended.first_byte_seconds <= ended.seconds
    assert isinstance(ended.usage, Usage)
    assert (ended.usage.output_tokens, ended.usage.cache_read_input_tokens) == (5, 7)


async def test_messages_usage(
    relay: Relay, listener: Listener, http: aiohttp.ClientSession
) -> None:
    """Usage of the Messages format has the same meaning."""
    body = claude("[[cached: 7]][[say: a b c]]", stream=True)
    url = f"{relay.url}/messages"
    async with http.post(url, json=body, headers=bearer(relay.token)) as response:
        await response.read()
    usage = (await listener.ended()).usage
    assert usage is not None
    assert (usage.output_tokens, usage.cache_read_input_tokens) == (3, 7)


async def test_a_broken_listener_harms_nobody(relay: Relay, http: aiohttp.ClientSession) -> None:
    """An exception in one listener reaches neither the stream nor the other listeners."""

    def broken(_event: RelayEvent) -> None:
        raise RuntimeError("broken listener")

    remove = relay.listen(broken)
    good = Listener()
    relay.listen(good)
    async with http.post(
        f"{relay.url}/chat/completions", json=chat("[[say: hi]]"), headers=bearer(relay.token)
    ) as response:
        assert b'"hi"' in await response.read()
    assert (await good.ended()).failure is None
    remove()
    remove()


async def test_chunks_are_not_held_back(relay: Relay, http: aiohttp.ClientSession) -> None:
    """What the gateway has sent is with the child while the stream is still open."""
    body = chat("[[say: early]][[hang]]")
    async with (
        http.post(
            f"{relay.url}/chat/completions", json=body, headers=bearer(relay.token)
        ) as response,
        patience(),
    ):
        received = b""
        while b"early" not in received:
            received += await response.content.readany()


@pytest.mark.parametrize(
    ("script", "status", "kind"),
    [
        ("[[error: 401]]", 401, "authentication"),
        ("[[error: 402]]", 402, "billing"),
        ("[[error: 429]]", 429, "rate_limited"),
        ("[[error: 500]]", 500, "failed"),
        ("[[error: 529]]", 529, "overloaded"),
        ("[[refuse]]", 200, "refusal"),
        ("[[page]]", 502, "not_sse"),
    ],
)
async def test_failures_are_typed(
    relay: Relay,
    listener: Listener,
    http: aiohttp.ClientSession,
    script: str,
    status: int,
    kind: str,
) -> None:
    """The gateway's status passes to the child; listeners learn the kind of failure."""
    async with http.post(
        f"{relay.url}/chat/completions", json=chat(script), headers=bearer(relay.token)
    ) as response:
        assert response.status == status
        await response.read()
    ended = await listener.ended()
    assert ended.status == status
    assert ended.failure is not None
    assert ended.failure.kind == kind


async def test_retry_after_passes(relay: Relay, http: aiohttp.ClientSession) -> None:
    """opencode paces its retries by the gateway's own `retry-after`."""
    async with http.post(
        f"{relay.url}/chat/completions", json=chat("[[error: 429 x1]]"), headers=bearer(relay.token)
    ) as response:
        assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("route", ["chat/completions", "messages"])
async def test_silence_is_bounded(
    make_relay: MakeRelay, http: aiohttp.ClientSession, route: str
) -> None:
    """A stream that falls silent ends with an error event in the route's format."""
    relay = await make_relay(idle_timeout_seconds=0.2)
    listener = Listener()
    relay.listen(listener)
    body = (chat if route.startswith("chat") else claude)("[[say: a b]][[hang]]", stream=True)
    async with http.post(
        f"{relay.url}/{route}", json=body, headers=bearer(relay.token)
    ) as response:
        frames = (await response.text()).strip().split("\n\n")
    last = json.loads(frames[-1].split("data: ")[1])
    assert "silent" in last["error"]["message"]
    assert frames[-1].startswith("event: error") == (route == "messages")
    ended = await listener.ended()
    assert ended.failure is not None
    assert ended.failure.kind == "timeout"


async def test_first_byte_is_bounded(make_relay: MakeRelay, http: aiohttp.ClientSession) -> None:
    """A gateway that accepts the connection and never answers gives 504, not an endless turn."""
    silent = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    relay = await make_relay(f"http://127.0.0.1:{port}/v1", first_byte_timeout_seconds=0.2)
    async with http.post(
        f"{relay.url}/messages", json=claude("hi", stream=True), headers=bearer(relay.token)
    ) as response:
        assert response.status == 504
        assert (await response.json())["type"] == "error"
    silent.close()


async def test_a_cut_stays_a_cut(
    relay: Relay, listener: Listener, http: aiohttp.ClientSession
) -> None:
    """When the gateway drops the connection the child's answer is broken too, never complete."""
    async with http.post(
        f"{relay.url}/chat/completions", json=chat("[[say: a]][[cut]]"), headers=bearer(relay.token)
    ) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    ended = await listener.ended()
    assert ended.failure is not None
    assert ended.failure.kind == "failed"


async def test_gateway_down(make_relay: MakeRelay, http: aiohttp.ClientSession) -> None:
    """A refused connection is 503 in the route's format, at once."""
    relay = await make_relay("http://127.0.0.1:9")
    listener = Listener()
    relay.listen(listener)
    async with http.post(
        f"{relay.url}/chat/completions", json=chat("hi"), headers=bearer(relay.token)
    ) as response:
        assert response.status == 503
        assert "cannot be reached" in (await response.json())["error"]["message"]
    assert (await listener.ended()).status == 503


async def test_hanging_up_is_heard_upstream(
    gateway: DemoGateway, relay: Relay, listener: Listener, http: aiohttp.ClientSession
) -> None:
    """When the child closes its connection (an aborted turn) the request ends as cancelled."""
    async with http.post(
        f"{relay.url}/chat/completions",
        json=chat("[[say: a]][[hang]]"),
        headers=bearer(relay.token),
    ) as response:
        await response.content.readany()
        response.close()
    ended = await listener.ended()
    assert ended.failure is not None
    assert ended.failure.kind == "cancelled"
    await asyncio.wait_for(gateway.close(), PATIENCE_SECONDS)


async def test_bodies_that_are_not_json_pass(
    gateway: DemoGateway, relay: Relay, http: aiohttp.ClientSession
) -> None:
    """Judging the body is the gateway's business."""
    async with http.post(
        f"{relay.url}/chat/completions", data=b"{nope", headers=bearer(relay.token)
    ) as response:
        assert response.status == 400
    assert gateway.requests[-1].body == "{nope"


async def test_a_child_that_dies_while_more_is_sent_is_no_error(
    make_relay: MakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """A chunk for a child whose connection was reset at the same moment is dropped; nothing is reported as an
    unexpected error, and the request ends as cancelled."""
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + frame)
        writers.put_nowait(writer)

    frame = b'data: {"choices": [{"index": 0, "delta": {"content": "words"}}]}\n\n'
    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, patience():
        relay = await make_relay(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        listener = Listener()
        relay.listen(listener)
        body = json.dumps(chat("hi")).encode()
        request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: relay\r\nx-api-key: {relay.token}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        with socket.socket() as child:
            child.setblocking(False)
            await loop.sock_connect(child, ("127.0.0.1", URL(relay.url).port))
            await loop.sock_sendall(child, request + body)
            writer = await writers.get()
            received = b""
            while b"words" not in received:
                received += await loop.sock_recv(child, 65536)
            # Both reach the relay in one turn of the loop, the chunk first.
            writer.write(frame)
            child.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            child.close()
        ended = await listener.ended()
        writer.close()
    assert ended.failure is not None
    assert ended.failure.kind == "cancelled"
    await relay.close()
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
