"""A gateway whose answers are scripted to the byte, for the streams, headers and endings of real gateways.

It speaks HTTP/1.1 by hand, because what it is for (no content type, headers of any size, a connection
that stays open or breaks) is what HTTP libraries keep one from doing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

CHAT_MODEL = "vendor/chat-model"
CLAUDE_MODEL = "claude-scripted"
"""Claude models are called by the Messages API, all others by chat completions."""
SSE = "text/event-stream; charset=utf-8"
_TITLE_MARK = "title generator"


@dataclass(frozen=True)
class Request:
    """What was asked. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """What is sent back: `chunks` one by one, each flushed, those `later` ones once `gate` is set, then the
    body's clean end.

    `stays_open` keeps the connection instead of ending the body, until the client leaves; `is_dropped`
    resets it in the middle of the body. `content_type` None sends none.
    """

    chunks: Iterable[bytes] = ()
    status: int = 200
    content_type: str | None = SSE
    headers: Sequence[tuple[str, str]] = ()
    stays_open: bool = False
    is_dropped: bool = False
    gate: asyncio.Event | None = None
    later: Sequence[bytes] = ()


Reply = Callable[[Request], Answer | Awaitable[Answer]]


class ScriptedGateway:
    """Lists two models and answers every model request by `reply`; requests for titles are answered here.

    `requests` holds the model requests but for titles, oldest first; `left` is set whenever a client
    closes the connection of an answer that stays open.
    """

    def __init__(self, reply: Reply | None = None) -> None:
        self.reply: Reply = reply or (lambda _request: chat_text("fine"))
        self.requests: list[Request] = []
        self.others: list[Request] = []
        self.answers: dict[str, Answer] = {}
        self.left = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL without `/v1`."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await _read(reader)
            answer = await self._answer(request)
            await _send(writer, answer)
            if answer.stays_open:
                await reader.read()  # returns when the client closes the connection
                self.left.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path in self.answers:
            self.others.append(request)
            return self.answers[path]
        if request.method == "GET":
            self.others.append(request)
            return _list() if path == "/v1/models" else json_answer({"detail": "Not Found"}, 404)
        if _TITLE_MARK in json.dumps(request.body):
            is_messages = path.endswith("/messages")
            return (messages_text if is_messages else chat_text)("A title")
        self.requests.append(request)
        answer = self.reply(request)
        return answer if isinstance(answer, Answer) else await answer


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    head = [f"HTTP/1.1 {answer.status} Scripted", "transfer-encoding: chunked", "connection: close"]
    if answer.content_type is not None:
        head.append(f"content-type: {answer.content_type}")
    head += [f"{name}: {value}" for name, value in answer.headers]
    writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n")
    await writer.drain()
    await _send_chunks(writer, answer.chunks)
    if answer.gate is not None:
        await answer.gate.wait()
        await _send_chunks(writer, answer.later)
    if answer.is_dropped:
        writer.transport.abort()
    elif not answer.stays_open:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _send_chunks(writer: asyncio.StreamWriter, chunks: Iterable[bytes]) -> None:
    for chunk_ in chunks:
        writer.write(b"%x\r\n%s\r\n" % (len(chunk_), chunk_))
        await writer.drain()
        await asyncio.sleep(0)  # lets the other side read: each chunk is a packet of its own


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, json.loads(raw) if raw else None)


def _list() -> Answer:
    data = [{"id": name, "object": "model", "mode": "chat"} for name in (CHAT_MODEL, CLAUDE_MODEL)]
    return json_answer({"object": "list", "data": data})


def json_answer(body: Any, status: int = 200, **more: Any) -> Answer:
    """A JSON answer."""
    return Answer([json.dumps(body).encode()], status, "application/json", **more)


# -- what streams are made of -------------------------------------------------------------------------


def sse(*objects: Any) -> bytes:
    """Return the frames of a chat completions stream; a string is sent as it is (`[DONE]`)."""
    texts = (each if isinstance(each, str) else json.dumps(each) for each in objects)
    return b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)


def named_sse(*objects: dict[str, Any]) -> bytes:
    """Return the frames of a Messages or Responses stream, each named by its object's type."""
    return b"".join(
        b"event: " + each["type"].encode() + b"\ndata: " + json.dumps(each).encode() + b"\n\n"
        for each in objects
    )


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> Any:
    """Return one chunk of a chat completion."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": CHAT_MODEL,
        "choices": [choice],
        **more,
    }


USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def chat_text(text: str, finish: str | None = "stop", *, done: bool = True, **more: Any) -> Answer:
    """A chat completion of one text."""
    objects: list[Any] = [chunk({"role": "assistant", "content": text})]
    if finish is not None:
        objects += [chunk(finish=finish), {**chunk(), "choices": [], "usage": USAGE}]
    return Answer([sse(*objects), *([sse("[DONE]")] if done else [])], **more)


def message_events(*blocks: dict[str, Any], stop: str | None = "end_turn") -> list[dict[str, Any]]:
    """Return the events of a message whose blocks are `text` or `tool_use` ones, without its stop event.

    With `stop` None the event that names the reason is missing, too.
    """
    usage = {"input_tokens": 11, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE_MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            start, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            raw = json.dumps(block["input"])
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": raw}
        events += [
            {"type": "content_block_start", "index": index, "content_block": start},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    if stop is not None:
        reason = {"stop_reason": stop, "stop_sequence": None}
        events.append({"type": "message_delta", "delta": reason, "usage": {"output_tokens": 3}})
    return events


def messages_text(text: str, stop: str | None = "end_turn", **more: Any) -> Answer:
    """A message of one text."""
    block = {"type": "text", "text": text}
    return Answer([named_sse(*message_events(block, stop=stop), {"type": "message_stop"})], **more)


# -- answers that are no streams -----------------------------------------------------------------------

Call = tuple[str, str, dict[str, Any]]
"""Id, tool and input of a call."""


def whole_chat(text: str, *calls: Call, finish: str | None = "stop") -> dict[str, Any]:
    """Return a chat completion as one object, with a thought."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": "hm"}
    if calls:
        message["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(v)}}
            for i, n, v in calls
        ]
    reason = "tool_calls" if calls and finish == "stop" else finish
    choice = {"index": 0, "message": message, "finish_reason": reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": CHAT_MODEL}
    return {**head, "choices": [choice], "usage": USAGE}


def whole_message(text: str, *calls: Call) -> dict[str, Any]:
    """Return a message of the Messages API as one object, with a thought."""
    return {
        **message_events()[0]["message"],
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": text},
            *({"type": "tool_use", "id": i, "name": n, "input": v} for i, n, v in calls),
        ],
        "stop_reason": "tool_use" if calls else "end_turn",
        "usage": {"input_tokens": 11, "output_tokens": 3},
    }


def whole_response(text: str, *calls: Call) -> dict[str, Any]:
    """Return a response of the Responses API as one object, with a thought."""
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": CHAT_MODEL,
        "status": "completed",
        "error": None,
        "output": [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
            },
            {"type": "message", "id": "msg_1", "role": "assistant", "content": parts},
            *(
                {
                    "type": "function_call",
                    "id": f"fc_{i}",
                    "call_id": i,
                    "name": n,
                    "arguments": json.dumps(v),
                }
                for i, n, v in calls
            ),
        ],
        "usage": {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14},
    }
