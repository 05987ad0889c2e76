"""What comes before the first event of an answer: an error is a status, signs of life hold nothing up."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sidecar.config import GatewaySettings
from sidecar.gateway.error_status import is_final
from sidecar.gateway.relay import Relay
from sidecar.model_requests import ModelRequestEnded
from sidecar.wire.opencode_retries import as_it_was, without_retry_words
from tests.fakes.gateway_scripted import (
    CHAT_MODEL,
    SSE,
    Answer,
    ScriptedGateway,
    chunk,
    json_answer,
    message_events,
    named_sse,
    sse,
)
from tests.waiting import patience

KEY = "real-gateway-key-77"
PATHS = ["chat/completions", "messages", "responses"]
RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
HEADS: dict[str, list[bytes]] = {
    "chat/completions": [
        b": ping\n\n",
        sse(chunk({"role": "assistant", "content": ""})),
        sse({**chunk(), "choices": []}),
    ],
    "messages": [
        b": ping\n\n",
        named_sse({"type": "ping"}),
        named_sse(message_events()[0], {"type": "ping"}),
    ],
    "responses": [
        b": ping\n\n",
        named_sse({"type": "response.created", "response": RESPONSE}),
        named_sse({"type": "response.in_progress", "response": RESPONSE}, {"type": "keepalive"}),
    ],
}
"""Signs of life, and what the answer begins with."""
HI = message_events({"type": "text", "text": "hi"})
TEXTS = {
    "chat/completions": sse(chunk({"content": "hi"})),
    "messages": named_sse(*HI[1:-2]),
    "responses": named_sse({"type": "response.output_text.delta", "delta": "hi"}),
}
ENDS = {
    "chat/completions": sse(chunk(finish="stop"), "[DONE]"),
    "messages": named_sse(*HI[-2:], {"type": "message_stop"}),
    "responses": named_sse({"type": "response.completed", "response": RESPONSE}),
}


class Client:
    """A relay before the gateway, and the requests of a child."""

    def __init__(self, relay: Relay, http: aiohttp.ClientSession) -> None:
        self._relay = relay
        self._http = http
        self.ended: asyncio.Queue[ModelRequestEnded] = asyncio.Queue()
        relay.listen(
            lambda event: (
                self.ended.put_nowait(event) if isinstance(event, ModelRequestEnded) else None
            )
        )

    def post(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a streaming request; entered when the answer's headers are there."""
        return self._http.post(
            f"{self._relay.url}/{path}",
            json={"model": CHAT_MODEL, "messages": [], "stream": True},
            headers={"authorization": f"Bearer {self._relay.token}"},
        )

    async def error(self, path: str) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
        """Send a streaming request; return its answer, which is an error, and the error."""
        async with patience(), self.post(path) as response:
            assert response.content_type == "application/json"
            return response, (await response.json())["error"]


Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
def connect(gateway: ScriptedGateway) -> Connect:
    @asynccontextmanager
    async def connected(**settings: Any) -> AsyncIterator[Client]:
        relay = Relay(settings=GatewaySettings(**settings), base_url=gateway.url, api_key=KEY)
        await relay.start()
        async with aiohttp.ClientSession() as http:
            yield Client(relay, http)
        await relay.close()

    return connected


def error_frame(path: str, error: dict[str, Any]) -> bytes:
    """An error as a stream of that wire has it."""
    if path == "responses":
        return named_sse({"type": "error", "sequence_number": 0, **error, "error": error})
    return (
        named_sse({"type": "error", "error": error})
        if path == "messages"
        else sse({"error": error})
    )


ERRORS = [
    ({"type": "invalid_request_error", "message": "max_tokens 50000 > 500"}, 400, "failed"),
    ({"message": "maximum context length is 500 tokens", "code": None}, 400, "failed"),
    ({"type": "authentication_error", "message": "no"}, 401, "authentication"),
    ({"type": "insufficient_quota", "message": "no"}, 402, "billing"),
    ({"type": "permission_error", "message": "no"}, 403, "authentication"),
    ({"type": "rate_limit_error", "message": "slow"}, 429, "rate_limited"),
    ({"message": "slow", "code": "429"}, 429, "rate_limited"),
    ({"type": "overloaded_error", "message": "Overloaded"}, 529, "overloaded"),
    ({"type": "api_error", "message": "Internal server error"}, 502, "failed"),
    ({"message": "boom"}, 502, "failed"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("error", "status", "kind"), ERRORS)
@pytest.mark.parametrize("head", [0, 3], ids=["first", "after the head"])
async def test_an_error_before_the_answer_is_a_status(
    gateway: ScriptedGateway,
    connect: Connect,
    path: str,
    error: dict[str, Any],
    status: int,
    kind: str,
    head: int,
) -> None:
    """Also behind comments, pings and the answer's head, in the format of the route."""
    gateway.reply = lambda _r: Answer([*HEADS[path][:head], error_frame(path, error)])
    async with connect() as client:
        response, shown = await client.error(path)
        ended = await client.ended.get()

    assert response.status == ended.status == status
    assert as_it_was(shown["message"]) == error["message"]
    assert ended.failure is not None
    assert (ended.failure.kind, ended.failure.message) == (kind, error["message"])


@pytest.mark.parametrize(
    "body",
    [
        sse({"detail": "context window exceeded"}),
        sse({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}),
        b'event: error\ndata: {"message": "x", "code": "400"}\n\n',
        sse({"error": "litellm.BadRequestError: x"}),
        json.dumps({"error": {"type": "invalid_request_error", "message": "x"}}).encode(),
    ],
)
@pytest.mark.parametrize("label", [SSE, "application/json", None])
async def test_an_error_in_any_form_and_under_any_label(
    gateway: ScriptedGateway, connect: Connect, body: bytes, label: str | None
) -> None:
    """As an event of any form, and as a JSON body."""
    gateway.reply = lambda _r: Answer([body], content_type=label)
    async with connect() as client:
        response, shown = await client.error("chat/completions")
    assert response.status == 400
    assert shown["message"]


@pytest.mark.parametrize(
    ("error", "headers", "expected"),
    [
        ({"type": "rate_limit_error", "retry_after": 7}, [], "7"),
        ({"type": "rate_limit_error", "message": "try again in 20s"}, [], "20"),
        ({"type": "rate_limit_error", "message": "try again in 3 hours"}, [], "3"),
        ({"type": "rate_limit_error", "retry_after": 86_400}, [], "60"),
        ({"type": "rate_limit_error", "retry_after": 7}, [("retry-after", "9")], "9"),
        ({"type": "overloaded_error"}, [("retry-after", "9000")], "60"),
        ({"type": "rate_limit_error"}, [], None),
    ],
)
async def test_the_pause_that_an_error_asks_for(
    gateway: ScriptedGateway,
    connect: Connect,
    error: dict[str, Any],
    headers: list[tuple[str, str]],
    expected: str | None,
) -> None:
    """As a header, by which opencode goes, within the bound of all such pauses."""
    frame = error_frame("messages", {"message": "x", **error})
    gateway.reply = lambda _r: Answer([frame], headers=[*headers, ("x-request-id", "r1")])
    async with connect() as client:
        response, _ = await client.error("messages")
    assert response.headers.get("retry-after") == expected
    assert response.headers["x-request-id"] == "r1"


async def test_the_key_is_in_no_error(gateway: ScriptedGateway, connect: Connect) -> None:
    """Gateways echo what they refuse."""
    gateway.reply = lambda _r: Answer([sse({"error": {"message": f"bad key {KEY}", "code": 401}})])
    async with connect() as client:
        response, shown = await client.error("chat/completions")
    assert response.status == 401
    assert shown["message"] == "bad key ***"


@pytest.mark.parametrize("path", PATHS)
async def test_the_answer_is_passed_on_with_its_first_event(
    gateway: ScriptedGateway, connect: Connect, path: str
) -> None:
    """Byte for byte, with all that came before, while the gateway still writes; an error then is an event."""
    gate = asyncio.Event()
    begun = [*HEADS[path], TEXTS[path]]
    gateway.reply = lambda _r: Answer(begun, gate=gate, later=[ENDS[path]])
    async with connect() as client, patience():
        async with client.post(path) as response:
            assert response.status == 200
            first = await response.content.readexactly(len(b"".join(begun)))
            gate.set()
            rest = await response.read()
        assert first + rest == b"".join([*begun, ENDS[path]])
        assert (await client.ended.get()).failure is None

        frame = error_frame(path, {"type": "rate_limit_error", "message": "slow"})
        gateway.reply = lambda _r: Answer([*begun, frame])
        async with client.post(path) as response:
            assert response.status == 200
            assert await response.read() == b"".join([*begun, frame])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("head", [0, 1, 3])
async def test_headers_wait_for_the_first_event_within_a_bound(
    gateway: ScriptedGateway, connect: Connect, path: str, head: int
) -> None:
    """A long prefill, silent or with signs of life: opencode waits 300 s for headers, for events longer."""
    gate = asyncio.Event()
    later = [TEXTS[path], ENDS[path]]
    gateway.reply = lambda _r: Answer(HEADS[path][:head], gate=gate, later=later)
    async with connect(first_event_seconds=0.1) as client, patience():
        async with client.post(path) as response:  # the gate is closed
            assert response.status == 200
            gate.set()
            body = await response.read()
        assert body == b"".join([*HEADS[path][:head], TEXTS[path], ENDS[path]])


async def test_long_heads_are_not_held(gateway: ScriptedGateway, connect: Connect) -> None:
    """Comments without end must not fill the memory."""
    gate = asyncio.Event()
    pings = b": " + b"x" * 1000 + b"\n\n"
    later = [TEXTS["messages"], ENDS["messages"]]
    gateway.reply = lambda _r: Answer([pings] * 100, gate=gate, later=later)
    async with connect() as client, patience(), client.post("messages") as response:
        assert response.status == 200
        assert not gate.is_set()
        gate.set()
        assert (await response.read()).startswith(pings * 100)


SIGNS = [
    b": ping\n\n",
    b"\n",
    b"data:\n\n",
    sse({"type": "ping"}),
    sse(chunk({"role": "assistant"})),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sign", SIGNS, ids=["comment", "blank", "no data", "ping", "empty piece"])
@pytest.mark.parametrize("has_text", [False, True], ids=["never begins", "goes on"])
async def test_signs_of_life_alone_are_bounded(
    gateway: ScriptedGateway, connect: Connect, path: str, sign: bytes, has_text: bool
) -> None:
    """A gateway that keeps a dead answer alive, before its first event or behind some text: broken."""
    if path != "chat/completions" and b"choices" in sign:
        sign = HEADS[path][-1]  # a piece of their own formats
    begun = [*HEADS[path], TEXTS[path]] if has_text else []
    gateway.reply = lambda _r: Answer(itertools.chain(begun, itertools.repeat(sign)))
    async with connect(stalled_seconds=0.3) as client, patience():
        async with client.post(path) as response:
            body = await response.read()
        ended = await client.ended.get()
    assert b"only signs of life" in body
    assert ended.failure is not None
    assert ended.failure.kind == "timeout"


async def test_a_child_that_leaves_before_the_first_event_frees_the_gateway(
    gateway: ScriptedGateway, connect: Connect
) -> None:
    """An aborted turn: the gateway is no longer asked."""
    gateway.reply = lambda _r: Answer([b": ping\n\n"], stays_open=True)
    async with connect() as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), client.post("messages"):
                pass
        async with patience():
            await gateway.left.wait()
            ended = await client.ended.get()
    assert ended.failure is not None
    assert ended.failure.kind == "cancelled"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("head", [0, 3])
@pytest.mark.parametrize(
    ("ending", "status", "kind"),
    [
        ({"is_dropped": True}, 502, "failed"),
        ({"stays_open": True}, 504, "timeout"),
        ({}, 502, "incomplete"),
    ],
)
async def test_an_answer_that_never_begins_is_a_status(
    gateway: ScriptedGateway,
    connect: Connect,
    path: str,
    head: int,
    ending: dict[str, bool],
    status: int,
    kind: str,
) -> None:
    """A connection that is dropped, silent or ended before the first event."""
    gateway.reply = lambda _r: Answer(HEADS[path][:head], **ending)
    async with connect(idle_timeout_seconds=0.3) as client:
        response, _ = await client.error(path)
        ended = await client.ended.get()
    assert response.status == ended.status == status
    assert ended.failure is not None
    assert ended.failure.kind == kind


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        ({"type": "invalid_request_error", "message": "max_tokens: 50000 > 8192"}, 400, 400),
        ({"message": "litellm.BadRequestError: no", "code": "500"}, 500, 400),
        ({"type": "authentication_error", "message": "wrong, try again in a 500 years"}, 500, 401),
        ({"message": "litellm.ContextWindowExceededError: 500 > 429"}, 500, 400),
        ({"message": "boom"}, 500, 500),
        ({"type": "rate_limit_error", "message": "slow, try again in 7s"}, 429, 429),
    ],
)
async def test_an_error_status_of_the_gateway_is_what_its_body_says(
    gateway: ScriptedGateway,
    connect: Connect,
    path: str,
    error: dict[str, Any],
    status: int,
    expected: int,
) -> None:
    """A final error has no words for which opencode tries again; pauses become headers."""
    gateway.reply = lambda _r: json_answer({"error": error}, status)
    async with connect() as client:
        response, shown = await client.error(path)
        ended = await client.ended.get()
    is_context = "ContextWindow" in error["message"]

    assert response.status == ended.status == expected
    assert as_it_was(shown["message"]) == error["message"]
    assert (shown.get("code") == "context_length_exceeded") == is_context
    if is_final(expected) and not is_context:
        assert without_retry_words(shown["message"]) == shown["message"]
    assert response.headers.get("retry-after") == ("7" if expected == 429 else None)
    assert ended.failure is not None
    assert ended.failure.message == error["message"]


@pytest.mark.parametrize(
    ("body", "label", "status"),
    [
        (b'{"error": {"message": "no such tool", "extra": [1]}}', "application/json", 400),
        (b"<html>not here</html>", "text/html", 404),
        (b"", "text/plain", 500),
        (b"Internal Server Error", "text/plain", 500),
    ],
)
async def test_an_error_that_opencode_reads_rightly_passes_byte_for_byte(
    gateway: ScriptedGateway, connect: Connect, body: bytes, label: str, status: int
) -> None:
    """With its status and its label."""
    gateway.reply = lambda _r: Answer([body] if body else [], status, label)
    async with connect() as client, client.post("messages") as response:
        assert (response.status, response.content_type) == (status, label)
        assert await response.read() == body


async def test_a_final_error_of_no_form_is_told_in_other_words(
    gateway: ScriptedGateway, connect: Connect
) -> None:
    """A page or a text, in the format of the route."""
    gateway.reply = lambda _r: Answer([b"<html>502 is not a model</html>"], 404, "text/html")
    async with connect() as client:
        response, shown = await client.error("messages")
    assert response.status == 404
    assert without_retry_words(shown["message"]) == shown["message"]
    assert as_it_was(shown["message"]) == "<html>502 is not a model</html>"


@pytest.mark.parametrize("path", PATHS)
async def test_a_final_error_after_the_first_event_is_told_in_other_words(
    gateway: ScriptedGateway, connect: Connect, path: str
) -> None:
    """It comes inside the stream, where opencode has only its words to go by."""
    error = {"type": "invalid_request_error", "message": "max_tokens 50000 > 500"}
    gateway.reply = lambda _r: Answer([*HEADS[path], TEXTS[path], error_frame(path, error)])
    async with connect() as client:
        async with client.post(path) as response:
            body = await response.read()
        ended = await client.ended.get()
    last = json.loads(body.strip().rsplit(b"data: ", 1)[-1])
    shown = last["error"]["message"]
    assert without_retry_words(shown) == shown
    assert as_it_was(shown) == error["message"]
    assert ended.failure is not None
    assert ended.failure.message == error["message"]
