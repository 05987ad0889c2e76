"""opencode's event streams, kept open while the child reloads a directory or is replaced.

Both are fed from the child's `/global/event`, the only stream that survives a reload. Each new connection
begins with `server.connected`, on which opencode's clients read everything again. Wire format: a frame is
`data: {"directory", "project", "payload": {"id", "type", "properties"}}` and an empty line; `/event` has
the payload alone, of one directory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from sidecar.aiokit import END_OF_FRAME, Backoff, SilenceBound, WholeFrames, aside
from sidecar.errors import ChildError, ChildUnavailableError
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
        is_ending: Callable[[], bool],
        heartbeat_seconds: float,
    ) -> None:
        """`is_ending`: the sidecar stops, so that no other child will come."""
        self._wait_serving = wait_serving
        self._is_ending = is_ending
        self._heartbeat_seconds = heartbeat_seconds

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
        backoff = Backoff(first=0.05, longest=2.0)
        while not self._is_ending():
            try:
                client = await self._next_client(response)
                async for frames in _frames(client):
                    if chosen := await aside(len(frames), partial(select, frames)):
                        await response.write(chosen)
                    backoff.reset()
            except aiohttp.ClientConnectionResetError:
                raise  # the client left
            except (ChildError, aiohttp.ClientError, OSError) as error:
                _log.debug("native event stream lost", error=repr(error))
            await asyncio.sleep(backoff.next_delay())
        return response

    async def _next_client(self, response: web.StreamResponse) -> ChildClient:
        """Wait for a child and let the client know meanwhile that the connection is alive."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_seconds):
                    return await self._wait_serving()
            except TimeoutError:
                pass
            except ChildUnavailableError:
                if self._is_ending():
                    raise
                await asyncio.sleep(1.0)
            await response.write(_COMMENT)


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
