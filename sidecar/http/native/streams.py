"""opencode's event streams, kept open while the child reloads a directory or is replaced.

Both are fed from `/global/event` of every boot that serves, the only stream that survives a reload; the pump
reads it once for all (`sidecar.opencode.frame_feed`). Each new connection begins with `server.connected`, on
which opencode's clients read everything again; another one follows when the child was replaced. A frame is
`data: {"directory", "project", "payload": {"id", "type", "properties"}}` and an empty line; `/event` has the
payload alone, of one directory.
"""

from __future__ import annotations

import json
import re
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
_EVENT = re.compile(rb'\{(?:"id":"[^"\\]*",)?"type":"([^"\\]*)","properties":')
_MOST_HEADS = 8

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
        of_directory = _OfDirectory(str(directory)) if directory is not None else None
        with self._feed.open(on_cut=partial(_cut, request)) as reader:
            await response.prepare(request)
            while True:
                is_over = self._is_over()  # asked first: nothing comes after it
                while frames := reader.take():
                    if of_directory is not None:
                        frames = await aside(len(frames), partial(of_directory.choose, frames))
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


class _OfDirectory:
    """Chooses what belongs to one directory, and what opencode says of itself, as `/event` has it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._mark = json.dumps(directory, ensure_ascii=False).encode()
        self._heads: set[bytes] = set()
        """What stood before the payload in frames that were read: of this directory, the payload last."""

    def choose(self, frames: bytes) -> bytes:
        """Return those of the whole frames."""
        return b"".join(map(self._chosen, frames.split(END_OF_FRAME)))

    def _chosen(self, frame: bytes) -> bytes:
        head, _, rest = frame.partition(_PAYLOAD)
        if head in self._heads:
            begins = _EVENT.match(rest)
            if begins is not None and begins[1] != b"sync" and rest.endswith(b"}}"):
                return b"data: " + rest[:-1] + END_OF_FRAME
        is_likely = self._mark in frame or b'"server.' in frame[:400]
        return self._read(frame, head, rest) if is_likely and frame.startswith(b"data:") else b""

    def _read(self, frame: bytes, head: bytes, rest: bytes) -> bytes:
        try:
            event = read_leniently(frame[5:])
            payload, kind = event["payload"], event["payload"]["type"]
        except (ValueError, KeyError, TypeError):
            return b""
        is_own = event.get("directory") == self._directory
        if kind == "sync" or not (is_own or str(kind).startswith("server.")):
            return b""
        *before, last = event
        # Behind strings, in which its quotes would be escaped, the first mention of the name is the member.
        if last == "payload" and all(isinstance(event[name], str) for name in before):
            if is_own and len(self._heads) < _MOST_HEADS:
                self._heads.add(head)
            return b"data: " + rest.rstrip()[:-1] + END_OF_FRAME
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        return b"data: " + text.encode(errors="replace") + END_OF_FRAME
