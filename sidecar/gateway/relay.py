"""The loopback relay: the child's only way to the gateway, so that it never holds the key.

The child's bash tool can print its environment and opencode prints resolved keys, so the child gets a
token of this boot instead. Bytes pass through untouched, each chunk at once; on the way every model
request is timed, attributed to opencode's session (`x-session-id`) and bounded in its silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import hdrs, web
from yarl import URL

from sidecar.config import GatewaySettings
from sidecar.gateway.failures import classify, classify_event, error_body, error_event
from sidecar.gateway.relay_events import (
    Failure,
    FailureKind,
    Listener,
    Listeners,
    ModelRequestEnded,
    ModelRequestStarted,
)
from sidecar.gateway.upstream import api_root, excerpt, key_headers
from sidecar.gateway.usage import AnswerTap, TokenUsage
from sidecar.ids import new_id
from sidecar.tracing import TRACEPARENT, PassingTracer, Span, Tracer

FORWARDED_PATHS = frozenset(
    {
        *("chat/completions", "messages", "messages/count_tokens", "responses"),
        *("completions", "embeddings", "models"),
    }
)
"""What model clients need. Nothing else: whoever reads the token in the child's environment must not
reach the gateway's administration with our key."""

_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "content-length"),
    }
)
STRIPPED_FROM_REQUEST = _HOP_BY_HOP | {
    *("host", "authorization", "x-api-key", "cookie", "expect"),
    "accept-encoding",  # a compressed stream would be held back by the compressor and hide usage
}
STRIPPED_FROM_ANSWER = _HOP_BY_HOP | {"date", "server", "set-cookie"}

_BODY_LIMIT_BYTES = 256 * 1024 * 1024
_KEPT_ERROR_BYTES = 4096
_NOT_SSE_WAIT_SECONDS = 2.0
_READ_BUFFER_BYTES = 256 * 1024
_KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, under LiteLLM, closes an idle connection: a POST that meets the
closing connection would be lost."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Call:
    """One request on its way."""

    path: str
    model: str
    wants_stream: bool
    started: float
    first_byte: float | None = None
    status: int = 0
    failure: Failure | None = None
    tap: AnswerTap | None = None
    traceparent: str | None = None


class Relay:
    """Listens on loopback and forwards `/v1/*` to the gateway with the real key.

    `url` ends in `/v1` and is valid after `start()`; `token` is what the child sends as Bearer or
    x-api-key. `traceparent_of` tells the trace context of an opencode session's turn.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        base_url: str,
        api_key: str | None,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        tracer: Tracer | None = None,
        traceparent_of: Callable[[str], str | None] = lambda _child_session_id: None,
    ) -> None:
        self.token = token or f"relay-{secrets.token_urlsafe(32)}"
        self._tracer = tracer or PassingTracer()
        self._traceparent_of = traceparent_of
        self._host = host
        self._settings = settings
        self._root = api_root(base_url)
        self._api_key = api_key
        self._port = port
        self._listeners = Listeners()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """The base URL for a child on this machine, with `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each request's start and end; the answer unsubscribes."""
        return self._listeners.add(listener)

    async def start(self) -> None:
        """Listen. Raises OSError when a fixed port is taken."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._settings.connect_timeout_seconds
            ),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
        )
        app = web.Application(client_max_size=_BODY_LIMIT_BYTES)
        app.router.add_route("*", "/v1/{path:.*}", self._handle)
        # handler_cancellation: when the child hangs up (an aborted turn), the gateway must hear of it.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=1
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self.close()
            raise
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening and drop what still streams."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if not self._has_token(request):
            return _answer(path, 401, "the relay's token is missing or of an earlier boot")
        if path not in FORWARDED_PATHS:
            return _answer(path, 404, f"the relay does not forward /v1/{path[:80]}")
        body = await request.read()
        call = _Call(path, *_peek(body), started=time.perf_counter())
        if request.method == hdrs.METH_POST:
            return await self._observed(request, body, call)
        return await self._forward(request, body, call)

    async def _observed(self, request: web.Request, body: bytes, call: _Call) -> web.StreamResponse:
        """Forward between the two events; the end is told whatever happens."""
        request_id = new_id("req")
        session_id = request.headers.get("x-session-id", "")
        parent_id = request.headers.get("x-parent-session-id", "")
        started_at = time.time()
        span = self._tracer.start(
            f"chat {call.model}" if call.model else "chat",
            parent=self._traceparent_of(session_id) or self._traceparent_of(parent_id),
            kind="client",
            attributes={"gen_ai.request.model": call.model, "url.path": f"/v1/{call.path}"},
        )
        call.traceparent = span.traceparent
        self._listeners.emit(
            ModelRequestStarted(request_id, session_id, parent_id, call.model, started_at)
        )
        try:
            return await self._forward(request, body, call)
        except (asyncio.CancelledError, ConnectionError):
            call.failure = call.failure or Failure("cancelled", "the child closed the connection")
            raise
        finally:
            usage = None
            if call.tap is not None:
                call.tap.finish()
                usage = call.tap.usage
                call.failure = call.failure or self._told_by(call.tap)
            seconds = time.perf_counter() - call.started
            _end_span(span, call, usage)
            self._listeners.emit(
                ModelRequestEnded(
                    request_id=request_id,
                    child_session_id=session_id,
                    parent_session_id=parent_id,
                    model=call.model,
                    status=call.status,
                    usage=usage,
                    failure=call.failure,
                    started_at=started_at,
                    first_byte_seconds=call.first_byte,
                    seconds=seconds,
                )
            )
            if call.failure is not None:
                _log.info(
                    "model request failed",
                    kind=call.failure.kind,
                    error=call.failure.message,
                    status=call.status,
                    model=call.model,
                    child_session_id=session_id,
                )

    async def _forward(self, request: web.Request, body: bytes, call: _Call) -> web.StreamResponse:
        assert self._session is not None
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in STRIPPED_FROM_REQUEST
            and not (call.traceparent and name.lower() == TRACEPARENT)
        ]
        if call.traceparent:
            headers.append((TRACEPARENT, call.traceparent))
        headers += key_headers(self._api_key, is_messages=call.path.startswith("messages")).items()
        headers.append((hdrs.ACCEPT_ENCODING, "identity"))
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        bound = self._settings.first_byte_timeout_seconds
        try:
            async with asyncio.timeout(bound):
                upstream = await self._session.request(
                    request.method,
                    URL(f"{self._root}/v1/{call.path}{query}", encoded=True),
                    data=body or None,
                    headers=headers,
                    allow_redirects=False,
                )
        except aiohttp.ServerTimeoutError as error:
            return self._fail(call, 503, "timeout", f"the gateway cannot be reached: {error}")
        except TimeoutError:
            return self._fail(call, 504, "timeout", f"no answer from the gateway in {bound:g} s")
        except aiohttp.ClientError as error:
            text = excerpt(str(error), self._api_key)
            return self._fail(call, 503, "failed", f"the gateway cannot be reached: {text}")
        async with upstream:
            is_sse = upstream.content_type == "text/event-stream"
            if call.wants_stream and upstream.status == 200 and not is_sse:
                # opencode would wait for events for ever.
                return await self._refuse_non_sse(upstream, call)
            return await self._pass(request, upstream, call, is_sse=is_sse)

    async def _pass(
        self,
        request: web.Request,
        upstream: aiohttp.ClientResponse,
        call: _Call,
        *,
        is_sse: bool,
    ) -> web.StreamResponse:
        call.status = upstream.status
        call.tap = AnswerTap(is_sse=is_sse)
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
        for name, value in upstream.headers.items():
            if name.lower() not in STRIPPED_FROM_ANSWER:
                response.headers.add(name, value)
        response.content_length = upstream.content_length
        await response.prepare(request)
        kept = b""
        try:
            while chunk := await self._next_chunk(upstream):
                if call.first_byte is None:
                    call.first_byte = time.perf_counter() - call.started
                await response.write(chunk)
                call.tap.feed(chunk)
                if upstream.status >= 400 and len(kept) < _KEPT_ERROR_BYTES:
                    kept += chunk
        except TimeoutError:
            message = f"the gateway was silent for {self._settings.idle_timeout_seconds:g} s"
            call.failure = Failure("timeout", message)
            if is_sse:
                await response.write(error_event(call.path, message))
            else:
                _abort(request)
        except aiohttp.ClientConnectionResetError:
            raise  # the child's side: only writing raises it
        except aiohttp.ClientError as error:
            text = excerpt(str(error), self._api_key)
            call.failure = Failure("failed", f"the gateway dropped the connection: {text}")
            _abort(request)
        if upstream.status >= 400 and call.failure is None:
            kind = classify(upstream.status, kept)
            call.failure = Failure(kind, excerpt(kept, self._api_key))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _next_chunk(self, upstream: aiohttp.ClientResponse) -> bytes:
        async with asyncio.timeout(self._settings.idle_timeout_seconds):
            return await upstream.content.readany()

    async def _refuse_non_sse(
        self, upstream: aiohttp.ClientResponse, call: _Call
    ) -> web.StreamResponse:
        beginning = b""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_NOT_SSE_WAIT_SECONDS):
                beginning = await upstream.content.read(_KEPT_ERROR_BYTES)
        upstream.close()
        message = (
            f"the gateway answered a streaming request with {upstream.content_type}: "
            f"{excerpt(beginning, self._api_key)}"
        )
        return self._fail(call, 502, "not_sse", message)

    def _fail(self, call: _Call, status: int, kind: FailureKind, message: str) -> web.Response:
        call.status = status
        call.failure = Failure(kind, message)
        return _answer(call.path, status, message)

    def _told_by(self, tap: AnswerTap) -> Failure | None:
        if tap.error is not None:
            message = excerpt(str(tap.error.get("message") or tap.error), self._api_key)
            return Failure(classify_event(tap.error), message)
        return Failure("refusal", "the model refused") if tap.is_refusal else None

    def _has_token(self, request: web.Request) -> bool:
        offered = request.headers.get("x-api-key") or request.headers.get(
            hdrs.AUTHORIZATION, ""
        ).removeprefix("Bearer ")
        return hmac.compare_digest(offered.encode(), self.token.encode())


def _end_span(span: Span, call: _Call, usage: TokenUsage | None) -> None:
    span.note({"http.response.status_code": call.status})
    if usage is not None:
        span.note(
            {
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
            }
        )
    span.end(error=call.failure.kind if call.failure else None)


def _peek(body: bytes) -> tuple[str, bool]:
    """Return (model, whether a stream is wanted) of a request body."""
    try:
        value = json.loads(body) if body else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return "", False
    return str(value.get("model") or ""), value.get("stream") is True


def _answer(path: str, status: int, message: str) -> web.Response:
    body = error_body(path, status, message)
    return web.Response(body=body, status=status, content_type="application/json")


def _abort(request: web.Request) -> None:
    """Drop the connection so that the child sees a broken answer, not a complete one."""
    if request.transport is not None:
        request.transport.abort()
