"""The demo gateway on a socket: routes, keys, faults and the record of what was asked."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web
from pydantic import ValidationError

from sidecar.demo_gateway import anthropic_wire, openai_wire
from sidecar.demo_gateway import models as listing
from sidecar.demo_gateway.anthropic_wire import AnthropicWire
from sidecar.demo_gateway.conversation import Conversation, read
from sidecar.demo_gateway.models import DEFAULT_MODELS, DemoModel
from sidecar.demo_gateway.openai_wire import OpenAIWire
from sidecar.demo_gateway.reply import Fault, Reply, Text, compose
from sidecar.listening import expect_hang_ups
from sidecar.wire.problems import problems_of

_MAX_RECORDED = 2_000
_BODY_LIMIT_BYTES = 64 * 1024 * 1024
_PAGE = "<html><body>The service is being updated.</body></html>"
_RETRY_AFTER_SECONDS = "1"
_FOUND = (
    "https://docs.example.com/guide",
    "https://blog.example.org/2026/news",
    "https://www.example.net/",
)
_SECRET_HEADERS = frozenset({"authorization", "x-api-key"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorBody = Callable[[int, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it arrived; header names are lower case, `at` is seconds since the epoch."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float


class DemoGateway:
    """A scriptable OpenAI- and Anthropic-compatible gateway (see `script`) for loopback use.

    `models` may be changed while it runs; `requests` holds the latest requests, oldest first.
    With `key` every route but health wants it as Bearer or x-api-key. `sleep` waits, seconds, where a
    script says that the answer is slow.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str | None = None,
        models: Iterable[DemoModel] = DEFAULT_MODELS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.models: dict[str, DemoModel] = {model.id: model for model in models}
        self.requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED)
        self._host = host
        self._port = port
        self._key = key
        self._sleep = sleep
        self._failures: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The base URL without `/v1`."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        app = web.Application(
            client_max_size=_BODY_LIMIT_BYTES,
            middlewares=[expect_hang_ups, self._record, self._check_key],
        )
        app.add_routes(
            [
                web.get("/health/liveliness", _alive),
                web.get("/v1/models", self._list_models),
                web.get("/models", self._list_models),
                web.get("/model_group/info", self._list_groups),
                web.get("/v1/model/info", self._list_deployments),
                web.get("/model/info", self._list_deployments),
                web.post("/v1/chat/completions", self._chat_completions),
                web.post("/v1/messages", self._messages),
                web.post("/v1/search/{tool}", self._search),
                web.get("/demo/requests", self._list_requests),
                web.post("/demo/models", self._add_model),
                web.delete("/demo/models/{id:.+}", self._remove_model),
            ]
        )
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
        await runner.setup()
        self._runner = runner
        site = web.TCPSite(runner, self._host, self._port, reuse_address=True)
        try:
            await site.start()
        except OSError:
            await self.close()
            raise
        self._port = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening and end every open stream."""
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(("/demo/", "/health/")):
            raw = await request.read()
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = raw.decode(errors="replace")
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.requests.append(
                RecordedRequest(request.method, request.path, headers, body, time.time())
            )
        return await handler(request)

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._key is None or request.path.startswith("/health/"):
            return await handler(request)
        bearer = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
        offered = request.headers.get("x-api-key") or bearer
        if hmac.compare_digest(offered.encode(), self._key.encode()):
            return await handler(request)
        message = "Authentication Error, Invalid proxy server token passed."
        return web.json_response(_errors_of(request)(401, message), status=401)

    async def _list_models(self, request: web.Request) -> web.Response:
        models = list(self.models.values())
        is_anthropic = "anthropic-version" in request.headers
        page = listing.anthropic_page(models) if is_anthropic else listing.openai_page(models)
        return web.json_response(page)

    async def _list_groups(self, _request: web.Request) -> web.Response:
        return web.json_response(listing.model_groups(list(self.models.values())))

    async def _list_deployments(self, _request: web.Request) -> web.Response:
        return web.json_response(listing.deployments(list(self.models.values())))

    async def _list_requests(self, _request: web.Request) -> web.Response:
        shown = [
            {
                "method": r.method,
                "path": r.path,
                "headers": {k: v for k, v in r.headers.items() if k not in _SECRET_HEADERS},
                "body": r.body,
                "at": r.at,
            }
            for r in list(self.requests)
        ]
        return web.json_response({"data": shown})

    async def _add_model(self, request: web.Request) -> web.Response:
        try:
            model = DemoModel.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response(
                openai_wire.error_body(400, str(problems_of(error)[0])), status=400
            )
        self.models[model.id] = model
        return web.json_response(model.model_dump(exclude_none=True))

    async def _remove_model(self, request: web.Request) -> web.Response:
        if self.models.pop(request.match_info["id"], None) is None:
            return web.json_response(openai_wire.error_body(404, "no such model"), status=404)
        return web.json_response({"deleted": True})

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        body = await _object(request)
        talk = read(body, session_id=request.headers.get("x-session-id", ""))
        reply = compose(talk)
        options = body.get("stream_options") or {}
        wire = OpenAIWire(talk, reply, include_usage=bool(options.get("include_usage")))
        return await self._answer(request, talk, reply, wire)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await _object(request)
        talk = read(body, session_id=request.headers.get("x-session-id", ""))
        reply = compose(talk)
        return await self._answer(request, talk, reply, AnthropicWire(talk, reply))

    async def _search(self, request: web.Request) -> web.Response:
        """Find the same pages for every query. As some search providers, it ignores the domain filter."""
        query = str((await _object(request)).get("query"))
        results = [
            {"title": f"{query}, part {n}", "url": url, "snippet": f"About {query}.", "date": None}
            for n, url in enumerate(_FOUND, start=1)
        ]
        return web.json_response({"object": "search", "results": results})

    async def _answer(
        self,
        request: web.Request,
        talk: Conversation,
        reply: Reply,
        wire: OpenAIWire | AnthropicWire,
    ) -> web.StreamResponse:
        if (refused := self._refusal(request, talk, reply)) is not None:
            return refused
        if reply.is_page:
            return web.Response(text=_PAGE, content_type="text/html")
        if not talk.stream or reply.is_plain_json:
            for piece in reply.pieces:
                if isinstance(piece, Text) and piece.pause_seconds:
                    await self._sleep(piece.pause_seconds)
                if isinstance(piece, Fault):
                    return await self._break(piece, request, web.StreamResponse())
            return web.json_response(wire.whole())
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
                hdrs.CACHE_CONTROL: "no-cache",
                "x-litellm-model-group": talk.model,
            }
        )
        await response.prepare(request)
        for frame in wire.opening():
            await response.write(frame)
        for piece in reply.pieces:
            if isinstance(piece, Text) and piece.pause_seconds:
                await self._sleep(piece.pause_seconds)
            if isinstance(piece, Fault):
                return await self._break(piece, request, response)
            for frame in wire.piece(piece):
                await response.write(frame)
        for frame in wire.closing():
            await response.write(frame)
        await response.write_eof()
        return response

    def _refusal(
        self, request: web.Request, talk: Conversation, reply: Reply
    ) -> web.Response | None:
        errors = _errors_of(request)
        if talk.model not in self.models:
            message = f"Invalid model name passed in model={talk.model}. Call `/v1/models`."
            return web.json_response(errors(400, message), status=400)
        failure = reply.failure
        if failure is None:
            return None
        headers = {}
        if failure.times is not None:
            if self._failures[talk.key] >= failure.times:
                return None
            self._failures[talk.key] += 1
            headers[hdrs.RETRY_AFTER] = _RETRY_AFTER_SECONDS
        message = failure.message or f"scripted failure {failure.status} of the demo gateway"
        body = errors(failure.status, message)
        return web.json_response(body, status=failure.status, headers=headers)

    async def _break(
        self, fault: Fault, request: web.Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        if not response.prepared:
            await response.prepare(request)
        if fault.kind == "hang":
            await self._closing.wait()
        if request.transport is not None:
            request.transport.abort()
        return response


async def _alive(_request: web.Request) -> web.Response:
    return web.json_response("I'm alive!")


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = json.dumps(_errors_of(request)(400, "the body must be a JSON object"))
        raise web.HTTPBadRequest(text=text, content_type="application/json")
    return body


def _errors_of(request: web.Request) -> ErrorBody:
    is_anthropic = request.path == "/v1/messages"
    return anthropic_wire.error_body if is_anthropic else openai_wire.error_body
