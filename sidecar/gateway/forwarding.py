"""One request of the child on its way to the gateway and back.

Bytes pass through untouched, each chunk at once, and the silence of both ends is bounded. A failure of the
way itself is answered in the route's format; what happened is noted in the `Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from sidecar.aiokit import SilenceBound
from sidecar.config import GatewaySettings
from sidecar.gateway.failures import classify, classify_event, error_body, error_event
from sidecar.gateway.upstream import api_root, excerpt, key_headers
from sidecar.gateway.usage import AnswerTap
from sidecar.model_requests import FailureKind, RequestFailure, Usage
from sidecar.tracing import TRACEPARENT
from sidecar.wire.json_text import read_leniently

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

_KEPT_ERROR_BYTES = 4096
_NOT_SSE_WAIT_SECONDS = 2.0
_READ_BUFFER_BYTES = 256 * 1024
_KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, under LiteLLM, closes an idle connection: a POST that meets the
closing connection would be lost."""

_MODEL_IN_FRONT = re.compile(rb'\s*\{\s*"model"\s*:\s*"([^"\\]+)"')


@dataclass(slots=True)
class Call:
    """One request on its way, and what is known of it so far."""

    path: str
    """Below `/v1/`."""
    body: bytes
    traceparent: str | None = None
    """What the gateway is told instead of the child's own."""
    started: float = field(default_factory=time.perf_counter)
    first_byte: float | None = None
    """Seconds from the start."""
    status: int = 0
    failure: RequestFailure | None = None
    tap: AnswerTap | None = None

    @property
    def model(self) -> str:
        """The model that the body names, empty when none. Model clients name it first: a prompt of
        megabytes is not parsed for it."""
        in_front = _MODEL_IN_FRONT.match(self.body)
        if in_front is not None:
            return in_front[1].decode("utf-8", "replace")
        return str(self._parsed().get("model") or "")

    @property
    def wants_stream(self) -> bool:
        """Whether the body asks for events."""
        return self._parsed().get("stream") is True

    @property
    def usage(self) -> Usage | None:
        """What the answer told of it."""
        return self.tap.usage if self.tap is not None else None

    def _parsed(self) -> dict[str, Any]:
        try:
            value = read_leniently(self.body) if self.body else None
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class Forwarder:
    """Sends requests on to the gateway with the real key. Use between `open()` and `close()`."""

    def __init__(self, *, settings: GatewaySettings, base_url: str, api_key: str | None) -> None:
        self._settings = settings
        self._root = api_root(base_url)
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the connections' pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._settings.connect_timeout_seconds
            ),
            # What one answer sets must not go with the requests of all other sessions.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
        )

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def finish(self, call: Call) -> None:
        """Look at the end of the answer: it may tell of a failure that no status showed."""
        if call.tap is not None:
            call.tap.finish()
            call.failure = call.failure or self._told_by(call.tap)

    async def forward(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Return the answer, prepared and complete, or our own where the gateway gave none."""
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
                    data=call.body or None,
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
            if upstream.status == 200 and not is_sse and call.wants_stream:
                # opencode would wait for events for ever.
                return await self._refuse_non_sse(upstream, call)
            return await self._pass(request, upstream, call, is_sse=is_sse)

    async def _pass(
        self,
        request: web.Request,
        upstream: aiohttp.ClientResponse,
        call: Call,
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
            async with SilenceBound(self._settings.idle_timeout_seconds) as bound:
                while chunk := await bound.wait(upstream.content.readany()):
                    if call.first_byte is None:
                        call.first_byte = time.perf_counter() - call.started
                    await response.write(chunk)
                    call.tap.feed(chunk)
                    if upstream.status >= 400 and len(kept) < _KEPT_ERROR_BYTES:
                        kept += chunk
        except TimeoutError:
            message = f"the gateway was silent for {self._settings.idle_timeout_seconds:g} s"
            call.failure = RequestFailure("timeout", message)
            if is_sse:
                await response.write(error_event(call.path, message))
            else:
                _abort(request)
        except aiohttp.ClientConnectionResetError:
            raise  # the child's side: only writing raises it
        except aiohttp.ClientError as error:
            text = excerpt(str(error), self._api_key)
            call.failure = RequestFailure("failed", f"the gateway dropped the connection: {text}")
            _abort(request)
        if upstream.status >= 400 and call.failure is None:
            kind = classify(upstream.status, kept)
            call.failure = RequestFailure(kind, excerpt(kept, self._api_key))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _refuse_non_sse(
        self, upstream: aiohttp.ClientResponse, call: Call
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

    def _fail(self, call: Call, status: int, kind: FailureKind, message: str) -> web.Response:
        call.status = status
        call.failure = RequestFailure(kind, message)
        return failed_answer(call.path, status, message)

    def _told_by(self, tap: AnswerTap) -> RequestFailure | None:
        if tap.error is not None:
            message = excerpt(str(tap.error.get("message") or tap.error), self._api_key)
            return RequestFailure(classify_event(tap.error), message)
        return RequestFailure("refusal", "the model refused") if tap.is_refusal else None


def failed_answer(path: str, status: int, message: str) -> web.Response:
    """Make an error answer in the format of the route."""
    body = error_body(path, status, message)
    return web.Response(body=body, status=status, content_type="application/json")


def _abort(request: web.Request) -> None:
    """Drop the connection so that the child sees a broken answer, not a complete one."""
    if request.transport is not None:
        request.transport.abort()
