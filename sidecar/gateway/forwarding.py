"""The way of one request of the child to the gateway and back.

Bytes are passed at once, and the silence of both ends is bounded. Event streams are passed frame by frame
(`sidecar.gateway.streams`); one that ends before its answer is complete ends with an error for the child.
A failure of the way itself is answered in the route's format; what happened is noted in the `Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from sidecar.aiokit import SMALL_BYTES, SilenceBound, aside, in_pieces
from sidecar.config import GatewaySettings
from sidecar.gateway.call import Call
from sidecar.gateway.error_answers import error_answer
from sidecar.gateway.error_status import is_final, is_too_long, named_status
from sidecar.gateway.event_answers import ERROR_CHARS, EVENT_STREAM, EventAnswer
from sidecar.gateway.failures import classify, classify_event, error_of
from sidecar.gateway.headers import for_child, for_gateway
from sidecar.gateway.redirects import RedirectError, next_url
from sidecar.gateway.streams.facts import AnswerFacts
from sidecar.gateway.upstream import api_root, excerpt
from sidecar.masking import masked
from sidecar.model_requests import FailureKind, RequestFailure
from sidecar.proxies import Proxies
from sidecar.wire.http_limits import MAX_HEADER_BYTES
from sidecar.wire.opencode_retries import has_retry_words

_MAX_ERROR_BYTES = 64 * 1024
"""Of an error's body; what is longer is cut."""
_KEPT_ANSWER_BYTES = 8 * 1024 * 1024
"""A whole answer up to this size is read for its usage."""
_READ_BUFFER_BYTES = 256 * 1024
_KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn, under LiteLLM, closes an idle connection: a POST that meets the
closing connection would be lost."""


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
        if not upstream.ok:
            return await self._pass_error(upstream, call)
        is_labelled = upstream.content_type == EVENT_STREAM
        if not (is_labelled or await aside(len(call.body), lambda: call.wants_stream)):
            return await self._pass_whole(request, upstream, call)
        answer = EventAnswer(
            settings=self._settings, api_key=self._api_key, upstream=upstream, call=call
        )
        return await answer.pass_on(request)

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

    # -- errors ---------------------------------------------------------------------------------------

    async def _pass_error(self, upstream: aiohttp.ClientResponse, call: Call) -> web.StreamResponse:
        """Answer with the gateway's error; in other words where opencode would draw wrong conclusions."""
        body = await self._error_body(upstream)
        error = error_of(body) or {"message": body.decode("utf-8", "replace")}
        message = excerpt(str(error.get("message") or error), self._api_key, chars=ERROR_CHARS)
        call.note_first_byte()
        call.status = upstream.status
        named = named_status(error)
        if upstream.status == 500 and named is not None and is_final(named):
            call.status = named  # some gateways say 500 of everything
        call.failure = RequestFailure(classify(call.status, body), excerpt(message, self._api_key))
        answer = error_answer(
            call.path,
            call.status,
            message,
            error=error,
            headers=self._headers(upstream),
            max_retry_after_seconds=self._settings.max_retry_after_seconds,
        )
        text = body.decode("utf-8", "replace")
        has_key = self._api_key is not None and masked(text, self._api_key) != text
        is_misread = is_final(call.status) and (has_retry_words(text) or is_too_long(error))
        if call.status == upstream.status and not (is_misread or has_key):
            answer.body = body
            if (kind := upstream.headers.get(hdrs.CONTENT_TYPE)) is not None:
                answer.headers[hdrs.CONTENT_TYPE] = kind
        return answer

    async def _error_body(self, upstream: aiohttp.ClientResponse) -> bytes:
        """Return the beginning of an error's body, which is all of any that is one."""
        body = bytearray()
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with SilenceBound(self._settings.idle_timeout_seconds) as bound:
                while len(body) <= _MAX_ERROR_BYTES and (
                    chunk := await bound.wait(upstream.content.readany())
                ):
                    body += chunk
        return bytes(body[:_MAX_ERROR_BYTES])

    # -- whole answers ------------------------------------------------------------------------------

    async def _pass_whole(
        self, request: web.Request, upstream: aiohttp.ClientResponse, call: Call
    ) -> web.StreamResponse:
        call.status = upstream.status
        response = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=self._headers(upstream)
        )
        if hdrs.CONTENT_ENCODING not in upstream.headers:
            response.content_length = upstream.content_length
        await response.prepare(request)
        kept = bytearray()
        try:
            async with SilenceBound(self._settings.idle_timeout_seconds) as bound:
                while chunk := await bound.wait(upstream.content.readany()):
                    call.note_first_byte()
                    await response.write(chunk)
                    if len(kept) <= _KEPT_ANSWER_BYTES:
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
        if len(kept) <= _KEPT_ANSWER_BYTES:
            call.facts = await aside(len(kept), lambda: _facts_of(call, bytes(kept)))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    def _headers(self, upstream: aiohttp.ClientResponse) -> CIMultiDict[str]:
        return for_child(
            upstream.headers, max_retry_after_seconds=self._settings.max_retry_after_seconds
        )

    def _fail(self, call: Call, status: int, kind: FailureKind, message: str) -> web.Response:
        call.status = status
        call.failure = RequestFailure(kind, message)
        return error_answer(call.path, status, message)


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
