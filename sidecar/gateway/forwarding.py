"""The way of one request of the child to the gateway and back.

Bytes are passed at once, and the silence of both ends is bounded. Event streams are passed frame by frame
(`sidecar.gateway.streams`); one that ends before its answer is complete ends with an error for the child.
A failure of the way itself is answered in the route's format; what happened is noted in the `Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from sidecar.aiokit import SMALL_BYTES, SilenceBound, aside, in_pieces
from sidecar.config import GatewaySettings
from sidecar.gateway.beginnings import Beginning, or_silence, read_beginning
from sidecar.gateway.call import Call
from sidecar.gateway.failures import (
    classify,
    classify_answer,
    classify_event,
    error_body,
    error_event,
)
from sidecar.gateway.headers import for_child, for_gateway
from sidecar.gateway.redirects import RedirectError, next_url
from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.facts import AnswerFacts
from sidecar.gateway.streams.frames import FrameTooLongError
from sidecar.gateway.upstream import api_root, excerpt
from sidecar.model_requests import FailureKind, RequestFailure
from sidecar.proxies import Proxies
from sidecar.wire.http_limits import MAX_HEADER_BYTES

_EVENT_STREAM = "text/event-stream"
_KEPT_ERROR_BYTES = 4096
_KEPT_ANSWER_BYTES = 8 * 1024 * 1024
"""A whole answer up to this size is read for its usage."""
_READ_BUFFER_BYTES = 256 * 1024
_KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, under LiteLLM, closes an idle connection: a POST that meets the
closing connection would be lost."""
_CLEAN_END_SECONDS = 0.1
"""How long the end of the body may take after the end of the answer, for the connection to be kept."""


class Forwarder:
    """Sends requests on to the gateway with the real key. Use between `open()` and `close()`."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        base_url: str,
        api_key: str | None,
        proxies: Proxies | None = None,
    ) -> None:
        self._settings = settings
        self._root = api_root(base_url)
        self._api_key = api_key
        self._proxies = proxies or Proxies.from_environment()
        self._proxies.proxy_for(URL(base_url))  # raises now what every request would raise
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
            read_bufsize=_READ_BUFFER_BYTES,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            middlewares=self._proxies.middlewares,
        )

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def failure_inside(self, call: Call) -> RequestFailure | None:
        """Return the failure that the answer itself reports and no status showed, if any."""
        facts = call.facts
        if facts is None:
            return None
        if facts.error is not None:
            message = excerpt(str(facts.error.get("message") or facts.error), self._api_key)
            return RequestFailure(classify_event(facts.error), message)
        return RequestFailure("refusal", "the model refused") if facts.is_refusal else None

    async def forward(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Return the answer, prepared and complete, or our own where the gateway gave none."""
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        url = URL(f"{self._root}/v1/{call.path}{query}", encoded=True)
        bound = self._settings.first_byte_timeout_seconds
        try:
            async with asyncio.timeout(bound):
                upstream = await self._ask(request, url, call)
        except aiohttp.ServerTimeoutError as error:
            return self._fail(call, 503, "timeout", f"the gateway cannot be reached: {error}")
        except TimeoutError:
            return self._fail(call, 504, "timeout", f"no answer from the gateway in {bound:g} s")
        except RedirectError as error:
            return self._fail(call, 502, "redirected", excerpt(str(error), self._api_key))
        except aiohttp.ClientError as error:
            text = excerpt(str(error), self._api_key)
            return self._fail(call, 503, "failed", f"the gateway cannot be reached: {text}")
        async with upstream:
            return await self._pass(request, upstream, call)

    async def _pass(
        self, request: web.Request, upstream: aiohttp.ClientResponse, call: Call
    ) -> web.StreamResponse:
        is_labelled = upstream.content_type == _EVENT_STREAM
        is_stream = is_labelled or await aside(len(call.body), lambda: call.wants_stream)
        if not (upstream.ok and is_stream):
            return await self._pass_whole(request, upstream, call)
        call.is_streamed = True
        if is_labelled:
            return await self._pass_events(request, upstream, call)
        beginning = Beginning()
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, FrameTooLongError):
            beginning = await self._beginning(upstream, call)
        if beginning.is_answer:
            return await self._pass_events(request, upstream, call, beginning)
        # opencode would wait for events until its own bound.
        label = upstream.headers.get(hdrs.CONTENT_TYPE, "no content type")
        text = excerpt(beginning.data, self._api_key) or "(nothing)"
        message = f"the gateway answered a streaming request with {label}: {text}"
        kind, status = classify_answer(beginning.data)
        return self._fail(call, status, kind, message)

    async def _ask(self, request: web.Request, url: URL, call: Call) -> aiohttp.ClientResponse:
        """Send the request, and send it again where the same host redirects it."""
        assert self._session is not None
        headers = for_gateway(
            request.headers,
            path=call.path,
            api_key=self._api_key,
            traceparent=call.traceparent,
        )
        is_large = len(call.body) > SMALL_BYTES
        if is_large:
            headers.append((hdrs.CONTENT_LENGTH, str(len(call.body))))
        redirects = 0
        while True:
            upstream = await self._session.request(
                request.method,
                url,
                data=in_pieces(call.body) if is_large else bytes(call.body) or None,
                headers=headers,
                allow_redirects=False,
            )
            if not 300 <= upstream.status < 400:
                return upstream
            upstream.release()
            url = next_url(url, upstream.status, upstream.headers.get(hdrs.LOCATION), redirects)
            redirects += 1

    async def _beginning(self, upstream: aiohttp.ClientResponse, call: Call) -> Beginning:
        silence = self._settings.idle_timeout_seconds
        return await read_beginning(upstream.content, call.wire, silence_seconds=silence)

    # -- event streams ------------------------------------------------------------------------------

    async def _pass_events(
        self,
        request: web.Request,
        upstream: aiohttp.ClientResponse,
        call: Call,
        beginning: Beginning | None = None,
    ) -> web.StreamResponse:
        stream = AnswerStream(call.wire, is_repaired=self._settings.repair_streams)
        call.status, call.facts = upstream.status, stream.facts
        response = self._response(upstream)
        if upstream.content_type != _EVENT_STREAM:
            response.headers[hdrs.CONTENT_TYPE] = f"{_EVENT_STREAM}; charset=utf-8"
        await response.prepare(request)
        try:
            beginning = beginning or await self._beginning(upstream, call)
            if beginning.events is not None:  # only the repairs make the usual events of it
                stream = AnswerStream(call.wire, is_repaired=True)
                call.facts = stream.facts
            chunk = beginning.events or beginning.data
            await self._pass_frames(upstream, call, stream, response, chunk)
        except TimeoutError:
            message = f"the gateway was silent for {self._settings.idle_timeout_seconds:g} s"
            call.failure = RequestFailure("timeout", message)
        except FrameTooLongError:
            call.failure = RequestFailure("failed", "an event of the gateway is too large")
        except aiohttp.ClientConnectionResetError:
            raise  # the child's side: only writing raises it
        except aiohttp.ClientError as error:
            if stream.missing is not None:
                text = excerpt(str(error), self._api_key)
                message = f"the gateway dropped the connection: {text}"
                call.failure = RequestFailure("failed", message)
                _abort(request)
        else:
            call.failure = self._incomplete(upstream, stream)
        finally:
            call.repaired_frames = stream.repaired_frames
        if call.failure is not None:
            is_final = call.failure.kind == "wrong_format"
            await response.write(error_event(call.path, call.failure.message, is_final=is_final))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        if stream.facts.is_over:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(_CLEAN_END_SECONDS):
                    await upstream.content.readany()
        return response

    async def _pass_frames(
        self,
        upstream: aiohttp.ClientResponse,
        call: Call,
        stream: AnswerStream,
        response: web.StreamResponse,
        chunk: bytes,
    ) -> None:
        """Pass on the chunk and what follows until the answer or the body is over."""
        async with SilenceBound(self._settings.idle_timeout_seconds) as bound:
            while chunk:
                call.note_first_byte()
                size = stream.held_bytes + len(chunk)
                if passed := await aside(size, partial(stream.feed, chunk)):
                    await response.write(passed)
                if stream.facts.is_over or stream.fault is not None:
                    return
                reading = bound.wait(upstream.content.readany())
                chunk = await (or_silence(reading) if stream.has_terminal_mark else reading)
        if rest := stream.end():
            await response.write(rest)

    def _incomplete(
        self, upstream: aiohttp.ClientResponse, stream: AnswerStream
    ) -> RequestFailure | None:
        """Return the failure of a stream that ended cleanly and too early, or that is not an answer.

        opencode decides by the words of the message whether it tries again.
        """
        if stream.fault is not None:
            return RequestFailure(stream.fault.kind, excerpt(stream.fault.message, self._api_key))
        if stream.missing is None:
            return None
        if not stream.is_event_stream:
            text = excerpt(stream.beginning, self._api_key)
            label = upstream.headers.get(hdrs.CONTENT_TYPE)
            kind, _ = classify_answer(stream.beginning)
            return RequestFailure(
                kind, f"the gateway sent no events as {label}, connection lost: {text}"
            )
        return RequestFailure(
            "incomplete",
            "connection lost: the gateway ended the answer before it was complete "
            f"(without {stream.missing})",
        )

    # -- whole answers ------------------------------------------------------------------------------

    async def _pass_whole(
        self, request: web.Request, upstream: aiohttp.ClientResponse, call: Call
    ) -> web.StreamResponse:
        call.status = upstream.status
        response = self._response(upstream)
        if hdrs.CONTENT_ENCODING not in upstream.headers:
            response.content_length = upstream.content_length
        await response.prepare(request)
        kept = bytearray()
        limit = _KEPT_ANSWER_BYTES if upstream.ok else _KEPT_ERROR_BYTES
        try:
            async with SilenceBound(self._settings.idle_timeout_seconds) as bound:
                while chunk := await bound.wait(upstream.content.readany()):
                    call.note_first_byte()
                    await response.write(chunk)
                    if len(kept) <= limit:
                        kept += chunk
        except TimeoutError:
            message = f"the gateway was silent for {self._settings.idle_timeout_seconds:g} s"
            call.failure = RequestFailure("timeout", message)
            _abort(request)
        except aiohttp.ClientConnectionResetError:
            raise  # the child's side: only writing raises it
        except aiohttp.ClientError as error:
            text = excerpt(str(error), self._api_key)
            call.failure = RequestFailure("failed", f"the gateway dropped the connection: {text}")
            _abort(request)
        if not upstream.ok:
            if call.failure is None:
                kind = classify(upstream.status, bytes(kept))
                call.failure = RequestFailure(kind, excerpt(bytes(kept), self._api_key))
        elif len(kept) <= limit:
            call.facts = await aside(len(kept), lambda: _facts_of(call, bytes(kept)))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    def _response(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = for_child(
            upstream.headers, max_retry_after_seconds=self._settings.max_retry_after_seconds
        )
        headers.pop(
            hdrs.CONTENT_ENCODING, None
        )  # what reaches us compressed all the same is unpacked
        return web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)

    def _fail(self, call: Call, status: int, kind: FailureKind, message: str) -> web.Response:
        call.status = status
        call.failure = RequestFailure(kind, message)
        return failed_answer(call.path, status, message)


def failed_answer(path: str, status: int, message: str) -> web.Response:
    """Make an error answer in the format of the route."""
    body = error_body(path, status, message)
    return web.Response(body=body, status=status, content_type="application/json")


def _facts_of(call: Call, body: bytes) -> AnswerFacts:
    facts = AnswerFacts(call.wire)
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
        if isinstance(value, dict):
            facts.see(value)
    return facts


def _abort(request: web.Request) -> None:
    """Drop the connection so that the child sees a broken answer, not a complete one."""
    if request.transport is not None:
        request.transport.abort()
