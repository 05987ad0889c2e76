"""opencode's event streams, kept open while the child reloads a directory or is replaced.

Both are fed from `/global/event` of every boot that serves, the only stream that survives a reload; the pump
reads it once for all (`sidecar.opencode.frame_feed`). Each new connection begins with `server.connected`, on
which opencode's clients read everything again; another one follows when the child was replaced. A frame is
`data: {"directory", "project", "payload": {"id", "type", "properties"}}` and an empty line; `/event` has the
payload alone, of one directory.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web

from sidecar.aiokit import END_OF_FRAME, aside
from sidecar.opencode.client import ChildClient
from sidecar.opencode.frame_feed import FrameFeed
from sidecar.wire.json_text import read_leniently

_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
_COMMENT = b": the child is away\n\n"
_PAYLOAD = b'"payload":'

_log = structlog.get_logger(__name__)


class EventStreams:
    """Answers `/global/event` and `/event`."""

    def __init__(
        self,
        *,
        feed: FrameFeed,
        wait_serving: Callable[[], Awaitable[ChildClient]],
        is_over: Callable[[], bool],
        heartbeat_seconds: float,
    ) -> None:
        """`is_over`: the sidecar stops, and the last child is gone."""
        self._feed = feed
        self._wait_serving = wait_serving
        self._is_over = is_over
        self._heartbeat_seconds = heartbeat_seconds

    async def answer(
        self, request: web.Request, directory: Path | None, request_id: str
    ) -> web.StreamResponse:
        """Stream until the client leaves or the sidecar stops; `directory` None sends all events.

        Raises ChildUnavailableError when there is no child to begin with.
        """
        await self._wait_serving()
        response = web.StreamResponse(headers=_HEADERS | {"request-id": request_id})
        with self._feed.open(on_cut=partial(_cut, request)) as reader:
            await response.prepare(request)
            while True:
                is_over = self._is_over()  # asked first: nothing comes after it
                while frames := reader.take():
                    if directory is not None:
                        choose = partial(_of_directory, str(directory), frames)
                        frames = await aside(len(frames), choose)
                    if frames:
                        await response.write(frames)
                if is_over:
                    return response
                if not await reader.wait(self._heartbeat_seconds):
                    await response.write(_COMMENT)


def _cut(request: web.Request) -> None:
    """End the connection of a reader that is too slow: the only honest end of an answer that has begun."""
    _log.warning("native event stream cut: its reader is too slow", path=request.path)
    if request.transport is not None:
        request.transport.abort()


def _of_directory(directory: str, frames: bytes) -> bytes:
    """Return what belongs to one directory, and what opencode says of itself, as `/event` has it."""
    mark = json.dumps(directory, ensure_ascii=False).encode()
    return b"".join(
        _chosen(frame, directory, mark) for frame in frames.split(END_OF_FRAME) if frame
    )


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
    *before, last = event
    _, _, rest = frame.rstrip().partition(_PAYLOAD)
    # Behind strings, in which its quotes would be escaped, the first mention of the name is the member.
    if last == "payload" and rest and all(isinstance(event[name], str) for name in before):
        return b"data: " + rest[:-1] + END_OF_FRAME
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode(errors="replace") + END_OF_FRAME
