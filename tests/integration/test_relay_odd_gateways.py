"""The relay against a gateway scripted to the byte: headers, labels, redirects, endings."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sidecar.config import GatewaySettings
from sidecar.errors import GatewayUnavailableError
from sidecar.gateway.client import GatewayClient
from sidecar.gateway.http_session import client_session
from sidecar.gateway.relay import Relay
from sidecar.gateway.search import GatewaySearch
from sidecar.model_requests import ModelRequestEnded
from sidecar.proxies import Proxies
from tests.fakes.gateway_scripted import (
    CHAT_MODEL,
    Answer,
    ScriptedGateway,
    chat_text,
    chunk,
    json_answer,
    message_events,
    named_sse,
    sse,
)
from tests.waiting import patience

KEY = "real-gateway-key-77"
PATH = "/v1/chat/completions"


class Wire:
    """A relay before the gateway, and a client before the relay."""

    def __init__(self, relay: Relay, http: aiohttp.ClientSession) -> None:
        self.relay = relay
        self.ended: asyncio.Queue[ModelRequestEnded] = asyncio.Queue()
        self._http = http
        relay.listen(
            lambda event: (
                self.ended.put_nowait(event) if isinstance(event, ModelRequestEnded) else None
            )
        )

    async def ask(
        self, path: str = "chat/completions", **headers: str
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Send a streaming request; return the answer and its body."""
        body = {"model": CHAT_MODEL, "messages": [], "stream": True}
        headers |= {"authorization": f"Bearer {self.relay.token}"}
        async with (
            patience(),
            self._http.post(
                f"{self.relay.url}/{path}", json=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return response, await response.read()


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def wire(gateway: ScriptedGateway) -> AsyncIterator[Wire]:
    relay = Relay(settings=GatewaySettings(), base_url=gateway.url, api_key=KEY)
    await relay.start()
    async with aiohttp.ClientSession(max_line_size=80_000, max_field_size=80_000) as http:
        yield Wire(relay, http)
    await relay.close()


def moved(location: str, status: int = 307) -> Answer:
    return Answer(status=status, headers=[("location", location)])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_on_the_same_host_is_followed_inside(
    gateway: ScriptedGateway, wire: Wire, status: int
) -> None:
    """With the method, the body and the key; the child sees the answer only."""
    gateway.answers[PATH] = moved("/v1/moved", status)
    response, body = await wire.ask()

    assert response.status == 200
    assert b"fine" in body
    [request] = gateway.requests
    assert (request.method, request.path) == ("POST", "/v1/moved")
    assert request.body["model"] == CHAT_MODEL
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "answer",
    [
        moved("https://user:secret@elsewhere.invalid/v1/x?key=secret"),
        moved("//elsewhere.invalid/v1/x", 302),
        moved(PATH, 303),
        moved(PATH),
        Answer(status=305),
        Answer(status=300),
    ],
)
async def test_no_redirect_reaches_the_child(
    gateway: ScriptedGateway, wire: Wire, answer: Answer
) -> None:
    """To another host, in a circle, or without a target: 502, without a header that leads anywhere."""
    gateway.answers[PATH] = answer
    response, body = await wire.ask()

    assert response.status == 502
    assert "location" not in response.headers
    assert b"redirect" in body or b"without a target" in body
    assert b"secret" not in body
    ended = await wire.ended.get()
    assert ended.failure is not None
    assert ended.failure.kind == "redirected"


async def test_headers_that_lead_away_are_stripped(gateway: ScriptedGateway, wire: Wire) -> None:
    """Others pass, at 60 kB, too."""
    away = ["Location", "Refresh", "Link", "Alt-Svc", "Content-Location", "Report-To", "Set-Cookie"]
    headers = [(name, "https://elsewhere.invalid/") for name in away]
    gateway.reply = lambda _r: chat_text("hi", headers=[*headers, ("x-big", "y" * 60_000)])
    response, _ = await wire.ask(big="z" * 60_000)

    assert not {name.lower() for name in away} & {name.lower() for name in response.headers}
    assert len(response.headers["x-big"]) == 60_000
    assert len(gateway.requests[0].headers["big"]) == 60_000


@pytest.mark.parametrize("label", ["text/plain", "application/json", "text/html", None])
async def test_the_first_bytes_decide_whether_it_is_a_stream(
    gateway: ScriptedGateway, wire: Wire, label: str | None
) -> None:
    """An event stream gets its right label; anything else is 502."""
    gateway.reply = lambda _r: chat_text("hi", content_type=label)
    response, body = await wire.ask()
    assert response.content_type == "text/event-stream"
    assert b"hi" in body

    gateway.reply = lambda _r: Answer([b"da", b"tabase down"], content_type=label)
    response, body = await wire.ask()
    assert response.status == 502
    assert b"database down" in body


async def test_a_compressed_stream_is_unpacked(gateway: ScriptedGateway, wire: Wire) -> None:
    """Some proxies compress although the relay asks for no compression."""
    plain = chat_text("hi")
    packed = gzip.compress(b"".join(plain.chunks))
    gateway.reply = lambda _r: Answer([packed], headers=[("content-encoding", "gzip")])
    response, body = await wire.ask()

    assert "content-encoding" not in response.headers
    assert body == b"".join(plain.chunks)


async def test_an_answer_is_over_before_its_connection(
    gateway: ScriptedGateway, wire: Wire
) -> None:
    """The child gets the end at once, and the connection is given up."""
    gateway.reply = lambda _r: chat_text("hi", stays_open=True)
    _, body = await wire.ask()
    assert body.endswith(b"data: [DONE]\n\n")
    async with patience():
        await gateway.left.wait()
    assert (await wire.ended.get()).failure is None


@pytest.mark.parametrize(
    ("path", "begun", "event"),
    [
        ("chat/completions", sse(chunk({"content": "x"})), None),
        ("messages", named_sse(*message_events({"type": "text", "text": "x"})), "error"),
        ("responses", named_sse({"type": "response.output_text.delta", "delta": "x"}), "error"),
    ],
)
async def test_a_cut_stream_ends_with_an_error_of_its_format(
    gateway: ScriptedGateway, wire: Wire, path: str, begun: bytes, event: str | None
) -> None:
    """What came is passed, then an error that says what was missing."""
    gateway.reply = lambda _r: Answer([begun])
    _, body = await wire.ask(path)
    *head, data = body.strip().split(b"\n\n")[-1].split(b"\n")
    error: dict[str, Any] = json.loads(data.removeprefix(b"data: "))

    assert head == ([b"event: error"] if event else [])
    assert error.get("type") == event
    assert "before it was complete" in error["error"]["message"]
    ended = await wire.ended.get()
    assert ended.failure is not None
    assert ended.failure.kind == "incomplete"


async def test_the_guard_refuses_in_the_relay(gateway: ScriptedGateway, wire: Wire) -> None:
    """Nothing is sent to the gateway, and the text has no digits for which opencode would try again."""
    gateway.reply = lambda _r: Answer()
    headers = {"x-session-id": "ses_1"}
    for _ in range(12):
        await wire.ask(**headers)
    response, body = await wire.ask(**headers)

    assert response.status == 400
    assert len(gateway.requests) == 12
    message = json.loads(body)["error"]["message"]
    assert not any(digit in message for digit in "0123456789")


async def test_lists_follow_and_name_redirects(gateway: ScriptedGateway) -> None:
    """As model requests do."""
    gateway.answers["/v1/models"] = moved("/lists/models")
    gateway.answers["/lists/models"] = json_answer({"object": "list", "data": [{"id": "m"}]})
    async with client_session() as session:
        client = GatewayClient(
            settings=GatewaySettings(), base_url=gateway.url, api_key=KEY, session=session
        )
        assert [model.id for model in (await client.list_models()).items] == ["m"]
        gateway.answers["/v1/models"] = moved("https://elsewhere.invalid/v1/models?x=1")
        with pytest.raises(GatewayUnavailableError, match=r"elsewhere\.invalid/v1/models[^?]*;"):
            await client.list_models()


async def test_searches_follow_and_name_redirects(gateway: ScriptedGateway) -> None:
    """As model requests do, with the query and the key."""
    found = {"results": [{"url": "https://a.example/", "title": "A"}]}
    gateway.answers["/v1/search/web"] = moved("/moved/search")
    gateway.answers["/moved/search"] = json_answer(found)
    async with client_session() as session:
        search = GatewaySearch(
            tool="web", base_url=gateway.url, api_key=KEY, session=session, timeout_seconds=60
        )
        assert [result.url for result in await search.search("quince")] == ["https://a.example/"]
        request = gateway.others[-1]
        assert (request.method, request.body["query"]) == ("POST", "quince")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        gateway.answers["/v1/search/web"] = moved("https://elsewhere.invalid/search?x=1")
        with pytest.raises(GatewayUnavailableError, match=r"elsewhere\.invalid/search[^?]*;"):
            await search.search("quince")


async def test_a_company_proxy_is_used(gateway: ScriptedGateway) -> None:
    """The proxy gets the whole URL and its own password; the gateway's key is for the gateway."""
    proxy = URL(gateway.url).with_user("me").with_password("pw")
    relay = Relay(
        settings=GatewaySettings(),
        base_url="http://gateway.corp:4000",
        api_key=KEY,
        proxies=Proxies.from_environment({"http_proxy": str(proxy)}),
    )
    await relay.start()
    async with aiohttp.ClientSession() as http:
        _, body = await Wire(relay, http).ask()
    await relay.close()

    assert b"fine" in body
    [request] = gateway.requests
    assert request.path == "http://gateway.corp:4000/v1/chat/completions"
    assert request.headers["proxy-authorization"] == aiohttp.encode_basic_auth("me", "pw")
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_https_goes_through_the_proxys_tunnel() -> None:
    """The proxy sees the host, and nothing of the request or the key."""
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    proxy = f"http://me:pw@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    relay = Relay(
        settings=GatewaySettings(),
        base_url="https://gateway.corp",
        api_key=KEY,
        proxies=Proxies.from_environment({"https_proxy": proxy}),
    )
    await relay.start()
    async with aiohttp.ClientSession() as http:
        response, _ = await Wire(relay, http).ask()
    await relay.close()
    server.close()

    assert response.status == 503
    assert heads[0].startswith(b"CONNECT gateway.corp:443 ")
    assert aiohttp.encode_basic_auth("me", "pw").encode() in heads[0]
    assert KEY.encode() not in heads[0]
