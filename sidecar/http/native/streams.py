"""opencode's event streams, kept open while the child reloads a directory or is replaced.

Both are fed from `/global/event` of every boot that serves, the only stream that survives a reload. Each new
connection begins with `server.connected`, on which opencode's clients read everything again. Wire format: a
frame is `data: {"directory", "project", "payload": {"id", "type", "properties"}}` and an empty line; `/event`
has the payload alone, of one directory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from sidecar.aiokit import (
    END_OF_FRAME,
    Backoff,
    SilenceBound,
    WholeFrames,
    aside,
    cancel_and_wait,
)
from sidecar.errors import ChildError
from sidecar.opencode.boot import Boot
from sidecar.opencode.client import ChildClient
from sidecar.wire.json_text import read_leniently

_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
_COMMENT = b": the child is away\n\n"

_SILENCE_SECONDS = 25.0
"""opencode sends a heartbeat every 10 s; a stream that is silent for longer is broken."""

_log = structlog.get_logger(__name__)

Select = Callable[[bytes], bytes]
"""Takes whole frames, returns those to send."""


class EventStreams:
    """Answers `/global/event` and `/event`."""

    def __init__(
        self,
        *,
        wait_serving: Callable[[], Awaitable[ChildClient]],
        boots: Callable[[], Sequence[Boot]],
        is_ending: Callable[[], bool],
        heartbeat_seconds: float,
    ) -> None:
        """`is_ending`: the sidecar stops, so that no other child will come."""
        self._wait_serving = wait_serving
        self._boots = boots
        self._is_ending = is_ending
        self._heartbeat_seconds = heartbeat_seconds
        self._news = asyncio.Event()

    def note_serving(self) -> None:
        """There is another boot: have every open stream follow it."""
        self._news.set()
        self._news = asyncio.Event()

    async def answer(
        self, request: web.Request, directory: Path | None, request_id: str
    ) -> web.StreamResponse:
        """Stream until the client leaves or the sidecar stops; `directory` None sends all events.

        Raises ChildUnavailableError when there is no child to begin with.
        """
        await self._wait_serving()
        response = web.StreamResponse(headers=_HEADERS | {"request-id": request_id})
        await response.prepare(request)
        select = _everything if directory is None else _of_directory(str(directory))
        async with _Merged(response, select) as merged:
            while merged.is_following or not self._is_ending():
                news = self._news
                if not self._is_ending():
                    merged.follow(self._boots())
                if not await merged.wait(news, self._heartbeat_seconds):
                    await merged.write(_COMMENT)
        return response


class _Merged:
    """One answer with the events of several boots, in whole frames."""

    def __init__(self, response: web.StreamResponse, select: Select) -> None:
        self._response = response
        self._select = select
        self._lock = asyncio.Lock()
        self._readers: dict[Boot, asyncio.Task[None]] = {}

    async def __aenter__(self) -> _Merged:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for reader in self._readers.values():
            await cancel_and_wait(reader)

    @property
    def is_following(self) -> bool:
        """Whether there is a boot whose events are read."""
        return bool(self._readers)

    def follow(self, boots: Sequence[Boot]) -> None:
        """Read the events of these boots, too."""
        for boot in boots:
            if boot not in self._readers:
                name = f"native events of boot {boot.number}"
                self._readers[boot] = asyncio.create_task(self._read(boot), name=name)

    async def wait(self, news: asyncio.Event, seconds: float) -> bool:
        """Wait for news or the end of a boot; False when there is no boot for that long.

        Raises ClientConnectionResetError.
        """
        listening = asyncio.create_task(news.wait(), name="news of opencode")
        try:
            done, _ = await asyncio.wait(
                {listening, *self._readers.values()},
                timeout=None if self._readers else seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            listening.cancel()
        for boot, reader in list(self._readers.items()):
            if reader.done():
                del self._readers[boot]
                reader.result()
        return bool(done)

    async def write(self, data: bytes) -> None:
        """Send data, once what is being sent is sent."""
        async with self._lock:
            await self._response.write(data)

    async def _read(self, boot: Boot) -> None:
        backoff = Backoff(first=0.05, longest=2.0)
        while not boot.is_over:
            try:
                async for frames in _frames(boot.client):
                    if chosen := await aside(len(frames), partial(self._select, frames)):
                        await self.write(chosen)
                    backoff.reset()
            except aiohttp.ClientConnectionResetError:
                raise  # the client left
            except (ChildError, aiohttp.ClientError, OSError) as error:
                _log.debug("native event stream lost", error=repr(error))
            if not boot.is_over:
                await asyncio.sleep(backoff.next_delay())


async def _frames(client: ChildClient) -> AsyncIterator[bytes]:
    """Yield whole frames, several at once; the part of a frame at the end of a broken stream is dropped."""
    async with SilenceBound(_SILENCE_SECONDS) as bound, await client.open_events() as upstream:
        if upstream.status != 200:
            raise ChildError("opencode refuses its events", upstream_status=upstream.status)
        whole = WholeFrames()
        while chunk := await bound.wait(upstream.content.readany()):
            size = whole.held_bytes + len(chunk)
            if frames := await aside(size, partial(whole.feed, chunk)):
                yield frames


def _everything(frames: bytes) -> bytes:
    return frames


def _of_directory(directory: str) -> Select:
    """Keep what belongs to one directory, and what opencode says of itself."""
    mark = json.dumps(directory, ensure_ascii=False).encode()

    def select(frames: bytes) -> bytes:
        return b"".join(
            _chosen(frame, directory, mark) for frame in frames.split(END_OF_FRAME) if frame
        )

    return select


def _chosen(frame: bytes, directory: str, mark: bytes) -> bytes:
    is_likely = mark in frame or b'"server.' in frame[:400]
    if not (is_likely and frame.startswith(b"data:")):
        return b""
    try:
        event = read_leniently(frame[5:])
        payload, kind = event["payload"], event["payload"]["type"]
    except (ValueError, KeyError, TypeError):
        return b""
    is_wanted = event.get("directory") == directory or str(kind).startswith("server.")
    if kind == "sync" or not is_wanted:
        return b""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode(errors="replace") + END_OF_FRAME
