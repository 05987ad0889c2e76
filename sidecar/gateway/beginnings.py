"""The beginning of an answer to a streaming request: what it is must be known before it is passed on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sidecar.aiokit import SilenceBound
from sidecar.gateway.streams.facts import Wire
from sidecar.gateway.streams.frames import MAX_FRAME_BYTES, FrameTooLongError, looks_like_events
from sidecar.gateway.streams.whole import begins_as_json, is_whole, stream_of

AFTER_END_SECONDS = 5.0
"""Silence that ends an answer which may be over: usage may follow a terminal mark, and some gateways keep
the connection open."""
_SMALL_BYTES = 64 * 1024
"""A larger body is converted in a thread."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first bytes of a body; of one that is JSON instead of an event stream, all of it.

    `events` is such a body as the stream it should have been, None when it is not an answer of a model.
    """

    data: bytes = b""
    events: bytes | None = None

    @property
    def is_answer(self) -> bool:
        """Whether it may be passed on as events."""
        return self.events is not None or looks_like_events(self.data) is True


async def read_beginning(
    read: Callable[[], Awaitable[bytes]], wire: Wire, *, silence_seconds: float
) -> Beginning:
    """Read until it is clear what the body is; `read` returns the next bytes, none at the end.

    Raises TimeoutError after that silence, FrameTooLongError, and what `read` raises.
    """
    data = bytearray()
    is_json = False
    async with SilenceBound(silence_seconds) as bound:
        while is_json or looks_like_events(bytes(data)) is None:
            reading = bound.wait(read())
            chunk = await (or_silence(reading) if is_json and is_whole(data) else reading)
            if not chunk:
                break
            data += chunk
            is_json = is_json or begins_as_json(data)
            if len(data) > MAX_FRAME_BYTES:
                raise FrameTooLongError
    body = bytes(data)
    if not is_json:
        return Beginning(body)
    if len(body) <= _SMALL_BYTES:
        return Beginning(body, stream_of(wire, body))
    return Beginning(body, await asyncio.to_thread(stream_of, wire, body))


async def or_silence(reading: Awaitable[bytes]) -> bytes:
    """Return the next bytes, or none after a short silence: the answer may be over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(AFTER_END_SECONDS):
            return await reading
    return b""
