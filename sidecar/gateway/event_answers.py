"""Passes one event stream from the gateway to the child, frame by frame; no pause in it is unbounded.

A stream that ends before its answer is complete ends with an error for the child. Until the answer begins not
even the headers are sent to the child: a failure before that is answered with the HTTP status of its kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from sidecar.aiokit import SilenceBound, aside
from sidecar.config import GatewaySettings
from sidecar.gateway.beginnings import Beginning, or_silence, read_beginning
from sidecar.gateway.call import Call
from sidecar.gateway.error_answers import error_answer
from sidecar.gateway.error_status import UNKNOWN_STATUS, status_of
from sidecar.gateway.failures import classify_event, error_event, error_of
from sidecar.gateway.headers import for_child
from sidecar.gateway.held_answer import HeldAnswer
from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.frames import FrameTooLongError
from sidecar.gateway.streams.whole import begins_as_json
from sidecar.gateway.upstream import excerpt
from sidecar.model_requests import FailureKind, RequestFailure

EVENT_STREAM = "text/event-stream"
_CLEAN_END_SECONDS = 0.1
"""How long the end of the body may take after the end of the answer, for the connection to be kept."""
_STATUS: dict[FailureKind, int] = {"timeout": 504, "wrong_format": 400}
"""Of a failure before the answer has begun. All others are 502; opencode does not try again after 400."""
_FINAL: frozenset[FailureKind] = frozenset({"wrong_format", "authentication", "billing"})
"""Failures that trying again does not mend."""
ERROR_CHARS = 2000
"""Of the gateway's message of an error, as the child gets it."""


class StalledError(Exception):
    """A stream lives, and brings nothing of the answer."""


class EventAnswer:
    """One answer to a streaming request, whose body is or should be events.

    What happened is noted in the `Call`.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        api_key: str | None,
        upstream: aiohttp.ClientResponse,
        call: Call,
    ) -> None:
        self._settings = settings
        self._api_key = api_key
        self._upstream = upstream
        self._call = call
        self._stream = AnswerStream(call.wire, is_repaired=settings.repair_streams)
        self._beginning = Beginning()
        self._is_labelled = upstream.content_type == EVENT_STREAM
        self._pieces = 0
        self._news_at = time.monotonic()
        """When something of the answer came last."""

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Return the answer, complete; unprepared where an error takes the place of all of it."""
        call, upstream = self._call, self._upstream
        call.is_streamed = True
        call.status, call.facts = upstream.status, self._stream.facts
        response = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=self._headers()
        )
        if not self._is_labelled:
            response.headers[hdrs.CONTENT_TYPE] = f"{EVENT_STREAM}; charset=utf-8"
        held_seconds = call.started + self._settings.first_event_seconds - time.perf_counter()
        until = asyncio.get_running_loop().time() + held_seconds
        answer = HeldAnswer(request, response, until=until)
        try:
            is_dropped = await self._pass(answer)
        finally:
            call.repaired_frames = self._stream.repaired_frames
        if not answer.is_open and (refusal := self._refusal()) is not None:
            return refusal
        await answer.open()
        if is_dropped and request.transport is not None:
            request.transport.abort()  # the child must see a broken answer, not a complete one
        if call.failure is not None:
            is_final = call.failure.kind in _FINAL
            await response.write(error_event(call.path, call.failure.message, is_final=is_final))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        if self._stream.facts.is_over:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(_CLEAN_END_SECONDS):
                    await upstream.content.readany()
        return response

    async def _pass(self, answer: HeldAnswer) -> bool:
        """Pass on all that comes, and note a failure; return whether the gateway dropped the connection."""
        call = self._call
        try:
            await self._pass_frames(answer)
        except StalledError:
            seconds = self._settings.stalled_seconds
            message = (
                f"the gateway sent nothing of the answer for {seconds:g} s, only signs of life"
            )
            call.failure = RequestFailure("timeout", message)
        except TimeoutError:
            message = f"the gateway was silent for {self._settings.idle_timeout_seconds:g} s"
            call.failure = RequestFailure("timeout", message)
        except FrameTooLongError:
            call.failure = RequestFailure("failed", "an event of the gateway is too large")
        except aiohttp.ClientConnectionResetError:
            raise  # the child's side: only writing raises it
        except aiohttp.ClientError as error:
            if self._stream.missing is not None:
                text = excerpt(str(error), self._api_key)
                message = f"the gateway dropped the connection: {text}"
                call.failure = RequestFailure("failed", message)
                return True
        else:
            call.failure = self._incomplete()
        return False

    async def _pass_frames(self, answer: HeldAnswer) -> None:
        """Pass on what comes until the answer or the body is over."""
        seconds = self._settings.idle_timeout_seconds
        read = partial(self._read, answer)
        self._beginning = await read_beginning(read, self._call.wire, silence_seconds=seconds)
        if self._beginning.events is not None:  # only the repairs make the usual events of it
            self._stream = AnswerStream(self._call.wire, is_repaired=True)
            self._call.facts = self._stream.facts
        if self._is_no_answer:
            return
        stream = self._stream
        chunk = self._beginning.events or self._beginning.data
        async with SilenceBound(seconds) as bound:
            while chunk:
                self._call.note_first_byte()
                size = stream.held_bytes + len(chunk)
                if passed := await aside(size, partial(stream.feed, chunk)):
                    await answer.write(passed, has_begun=stream.has_begun)
                if stream.facts.is_over or stream.fault is not None:
                    return
                reading = bound.wait(read())
                chunk = await (or_silence(reading) if stream.has_terminal_mark else reading)
        if rest := stream.end():
            await answer.write(rest, has_begun=stream.has_begun)

    async def _read(self, answer: HeldAnswer) -> bytes:
        """Return the next bytes, none at the end. Raises StalledError."""
        now = time.monotonic()
        if self._stream.pieces != self._pieces:
            self._pieces, self._news_at = self._stream.pieces, now
        elif now - self._news_at > self._settings.stalled_seconds:
            raise StalledError
        return await answer.read(self._upstream.content.readany)

    def _incomplete(self) -> RequestFailure | None:
        """Return the failure of a stream that ended cleanly and too early, or that is no answer.

        opencode decides by the words of the message whether it tries again.
        """
        stream = self._stream
        if self._is_no_answer:
            return self._no_events()
        if stream.fault is not None:
            return RequestFailure(stream.fault.kind, excerpt(stream.fault.message, self._api_key))
        if stream.missing is None:
            return None
        if not stream.is_event_stream:
            return self._no_events()
        return RequestFailure(
            "incomplete",
            "connection lost: the gateway ended the answer before it was complete "
            f"(without {stream.missing})",
        )

    @property
    def _is_no_answer(self) -> bool:
        """Whether the body's beginning says that no events will come."""
        data = self._beginning.data
        return not self._beginning.is_answer and (not self._is_labelled or begins_as_json(data))

    def _no_events(self) -> RequestFailure:
        data = self._stream.beginning or self._beginning.data
        label = self._upstream.headers.get(hdrs.CONTENT_TYPE, "no content type")
        error = error_of(data)
        kind = "not_sse" if error is None else classify_event(error)
        text = excerpt(data, self._api_key) or "(nothing)"
        return RequestFailure(
            kind, f"connection lost: the gateway answered a streaming request with {label}: {text}"
        )

    def _refusal(self) -> web.Response | None:
        """Return the answer that an error is, which came before anything else; None when there is none."""
        call, error = self._call, self._stream.facts.error
        if error is None and self._is_no_answer:
            error = error_of(self._beginning.data)
        if error is not None:
            call.status = status_of(error)
            text = str(error.get("message") or error)
            message = excerpt(text, self._api_key, chars=ERROR_CHARS)
            call.failure = RequestFailure(classify_event(error), excerpt(text, self._api_key))
        elif call.failure is not None:
            call.status = _STATUS.get(call.failure.kind, UNKNOWN_STATUS)
            message = call.failure.message
        else:
            return None
        return error_answer(
            call.path,
            call.status,
            message,
            error=error,
            headers=self._headers(),
            max_retry_after_seconds=self._settings.max_retry_after_seconds,
        )

    def _headers(self) -> CIMultiDict[str]:
        return for_child(
            self._upstream.headers,
            max_retry_after_seconds=self._settings.max_retry_after_seconds,
        )
