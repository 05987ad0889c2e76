"""A gateway and an opencode in one, which stream as fast as they can: `python -m bench.flood PORT`.

Real ones are slower: what the way from them to a reader costs would hide behind them. Like them it writes
each event by itself. `POST /v1/chat/completions` answers as many chunks of a word as `events` in its body.
`POST /flood {"events", "directory"}` sends so many events of opencode, of that directory, to all open
`/global/event` and `/event`; as opencode does, to each of them. The rest is what a sidecar asks that attaches
itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass

from aiohttp import web

VERSION = "1.18.33"
_MODEL = "vendor/model-000"
_HEARTBEAT_SECONDS = 5.0


def _frame(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def chat_chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    """Return a chunk as LiteLLM sends it."""
    chunk = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "created": 1_800_000_000,
        "model": _MODEL,
        "object": "chat.completion.chunk",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"finish_reason": finish, "index": 0, "delta": delta}],
    }
    return _frame(chunk)


def opencode_event(type_: str, *, directory: str | None, **properties: object) -> bytes:
    """Return an event as opencode sends it on `/global/event`, without `directory` as on `/event`."""
    payload = {"id": "evt_0123456789abcdef0123456789", "type": type_, "properties": properties}
    if directory is None:
        return _frame(payload)
    return _frame({"directory": directory, "project": "global", "payload": payload})


def word_event(directory: str | None) -> bytes:
    """Return the event of a word that a model said."""
    return opencode_event(
        "message.part.delta",
        directory=directory,
        sessionID="ses_0123456789abcdef0123456789",
        messageID="msg_0123456789abcdef0123456789",
        partID="prt_0123456789abcdef0123456789",
        field="text",
        delta=" word",
    )


CHAT_WORD = chat_chunk({"content": " word"})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be sent to each reader."""

    events: int
    directory: str


class Flood:
    """The handlers."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[_Wanted]] = set()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Stream one answer."""
        events = (await request.json())["events"]
        response = await _open(request)
        await response.write(chat_chunk({"role": "assistant", "content": ""}))
        for _ in range(events):
            await response.write(CHAT_WORD)
        await response.write(chat_chunk({}, "stop"))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream what is flooded until the reader leaves."""
        is_global = request.path == "/global/event"
        response = await _open(request)
        queue: asyncio.Queue[_Wanted] = asyncio.Queue()
        self._readers.add(queue)
        try:
            server = "/server" if is_global else None
            await response.write(opencode_event("server.connected", directory=server))
            while True:
                try:
                    wanted = await asyncio.wait_for(queue.get(), _HEARTBEAT_SECONDS)
                except TimeoutError:
                    await response.write(opencode_event("server.heartbeat", directory=server))
                    continue
                event = word_event(wanted.directory if is_global else None)
                for _ in range(wanted.events):
                    await response.write(event)
        finally:
            self._readers.discard(queue)

    async def flood(self, request: web.Request) -> web.Response:
        """Begin to send; answers how many readers there are."""
        body = await request.json()
        for queue in self._readers:
            queue.put_nowait(_Wanted(body["events"], body["directory"]))
        return web.json_response(len(self._readers))


async def _open(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    return response


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"healthy": True, "version": VERSION})


async def _document(_request: web.Request) -> web.Response:
    return web.json_response({"paths": {"/session/{id}": {"get": {}}}})


async def _models(_request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": _MODEL, "object": "model"}]})


async def _nothing(_request: web.Request) -> web.Response:
    return web.json_response({})


async def _main(port: int) -> None:
    flood = Flood()
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", flood.complete),
            web.get("/v1/models", _models),
            web.get("/global/event", flood.events),
            web.get("/event", flood.events),
            web.post("/flood", flood.flood),
            web.get("/global/health", _health),
            web.get("/doc", _document),
            web.route("*", "/{path:.*}", _nothing),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
