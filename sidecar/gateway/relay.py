"""The loopback relay: the child's only way to the gateway, so that it never holds the key.

The child's bash tool can print its environment and opencode prints resolved keys, so the child gets a
token of this boot instead. Every model request that passes is timed and attributed to opencode's session
(`x-session-id`); `sidecar.gateway.forwarding` does the passing.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable

import structlog
from aiohttp import hdrs, web

from sidecar.aiokit import aside
from sidecar.config import GatewaySettings
from sidecar.gateway.call import Call
from sidecar.gateway.error_answers import error_answer
from sidecar.gateway.forwarding import Forwarder
from sidecar.gateway.model_ids import with_gateway_id
from sidecar.gateway.relay_events import Listener, Listeners
from sidecar.gateway.request_guard import RequestGuard
from sidecar.ids import new_id
from sidecar.listening import expect_hang_ups, listen
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted, RequestFailure
from sidecar.proxies import Proxies
from sidecar.tracing import PassingTracer, Span, Tracer
from sidecar.wire.http_limits import MAX_HEADER_BYTES

FORWARDED_PATHS = frozenset(
    {
        *("chat/completions", "messages", "messages/count_tokens", "responses"),
        *("completions", "embeddings", "models"),
    }
)
"""What model clients need. Nothing else: a process that reads the token in the child's environment must not
reach the gateway's administration with our key."""

_REFUSED_STATUS = 400
_REFUSED_TEXT = (
    "the sidecar stopped this turn: it made too many model requests "
    "(SIDECAR_TURN_MAX_REQUESTS_WITHOUT_PROGRESS, SIDECAR_TURN_MAX_MODEL_REQUESTS)"
)
"""opencode decides by the status, and by words and digits in the text, that this is not tried again."""
_BODY_LIMIT_BYTES = 256 * 1024 * 1024

_log = structlog.get_logger(__name__)


class Relay:
    """Listens on loopback and forwards `/v1/*` to the gateway with the real key.

    `url` ends in `/v1` and is valid after `start()`; `token` is what the child sends as Bearer or
    x-api-key. `traceparent_of` returns the trace context of an opencode session's turn. `on_release` is
    called with the size of each body that is done with.
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
        guard: RequestGuard | None = None,
        proxies: Proxies | None = None,
        on_release: Callable[[int], None] = lambda _freed: None,
    ) -> None:
        self._on_release = on_release
        self.token = token or f"relay-{secrets.token_urlsafe(32)}"
        self._tracer = tracer or PassingTracer()
        self._traceparent_of = traceparent_of
        self._host = host
        self._forwarder = Forwarder(
            settings=settings, base_url=base_url, api_key=api_key, proxies=proxies
        )
        self.guard = guard or RequestGuard()
        self.repaired_frames = 0
        """Frames of answers that were not passed on as they came."""
        self.bytes_taken = 0
        """Of the child's requests: it grows while the child works."""
        self._port = port
        self._listeners = Listeners()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The base URL for a child on this machine, with `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each request's start and end; the answer unsubscribes."""
        return self._listeners.add(listener)

    async def start(self) -> None:
        """Listen. Raises OSError when a fixed port is taken."""
        self._forwarder.open()
        app = web.Application(middlewares=[expect_hang_ups])
        app.router.add_route("*", "/v1/{path:.*}", self._handle)
        # handler_cancellation: when the child hangs up (an aborted turn), the gateway must hear of it.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=1,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        await self._runner.setup()
        try:
            await listen(self._runner, self._host, self._port)
        except OSError:
            await self.close()
            raise
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening and drop what still streams."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._forwarder.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if not self._has_token(request):
            return error_answer(path, 401, "the relay's token is missing or of an earlier boot")
        if path not in FORWARDED_PATHS:
            return error_answer(path, 404, f"the relay does not forward /v1/{path[:80]}")
        body = bytearray()
        # `request.read()` would hold it several times.
        while piece := await request.content.readany():
            body += piece
            if len(body) > _BODY_LIMIT_BYTES:
                return error_answer(path, 413, f"a request may have {_BODY_LIMIT_BYTES} bytes")
        self.bytes_taken += len(body)
        call, model = await aside(len(body), lambda: _read(path, body))
        try:
            if request.method == hdrs.METH_POST:
                return await self._observed(request, call, model)
            return await self._forwarder.forward(request, call)
        finally:
            self._on_release(len(body))

    async def _observed(self, request: web.Request, call: Call, model: str) -> web.StreamResponse:
        """Forward the request and report its start and, in every case, its end."""
        request_id = new_id("req")
        session_id = request.headers.get("x-session-id", "")
        parent_id = request.headers.get("x-parent-session-id", "")
        started_at = time.time()
        span = self._tracer.start(
            f"chat {model}" if model else "chat",
            parent=self._traceparent_of(session_id) or self._traceparent_of(parent_id),
            kind="client",
            attributes={"gen_ai.request.model": model, "url.path": f"/v1/{call.path}"},
        )
        call.traceparent = span.traceparent
        self._listeners.emit(
            ModelRequestStarted(request_id, session_id, parent_id, model, started_at)
        )
        refusal = self.guard.begin(session_id, parent_id)
        try:
            if refusal is not None:
                call.status, call.failure = _REFUSED_STATUS, refusal
                return error_answer(call.path, _REFUSED_STATUS, _REFUSED_TEXT)
            return await self._forwarder.forward(request, call)
        except (asyncio.CancelledError, ConnectionError):
            # The child leaves as soon as it has read an error: then that is why it failed.
            call.failure = (
                call.failure
                or self._forwarder.failure_inside(call)
                or RequestFailure("cancelled", "the child closed the connection")
            )
            raise
        finally:
            call.failure = call.failure or self._forwarder.failure_inside(call)
            if refusal is None and (call.failure is None or call.failure.kind != "cancelled"):
                self.guard.end(session_id, is_progress=call.is_progress)
            self.repaired_frames += call.repaired_frames
            seconds = time.perf_counter() - call.started
            _end_span(span, call)
            self._listeners.emit(
                ModelRequestEnded(
                    request_id=request_id,
                    child_session_id=session_id,
                    parent_session_id=parent_id,
                    model=model,
                    status=call.status,
                    usage=call.usage,
                    failure=call.failure,
                    started_at=started_at,
                    first_byte_seconds=call.first_byte,
                    seconds=seconds,
                    calls=call.facts.call_count if call.facts is not None else 0,
                )
            )
            if call.failure is not None:
                _log.info(
                    "model request failed",
                    kind=call.failure.kind,
                    error=call.failure.message,
                    status=call.status,
                    model=model,
                    child_session_id=session_id,
                )

    def _has_token(self, request: web.Request) -> bool:
        offered = request.headers.get("x-api-key") or request.headers.get(
            hdrs.AUTHORIZATION, ""
        ).removeprefix("Bearer ")
        return hmac.compare_digest(offered.encode(), self.token.encode())


def _read(path: str, body: bytearray) -> tuple[Call, str]:
    """Return the call, and the model that it names."""
    call = Call(path, with_gateway_id(body))
    return call, call.model


def _end_span(span: Span, call: Call) -> None:
    span.note({"http.response.status_code": call.status})
    if (usage := call.usage) is not None:
        span.note(
            {
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
            }
        )
    span.end(error=call.failure.kind if call.failure else None)
