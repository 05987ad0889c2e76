"""The subscriptions to `/global/event`, one per boot: reconnects, hands events on by session, reports gaps.

Wire format: SSE frames of one `data:` line, `{"directory", "payload": {"id", "type", "properties"}}`; no ids,
no replay. `payload.type == "sync"` are durable copies of other events. A heartbeat comes every 10 s. The
child's queue for a slow reader grows without bound, so reading never waits for a subscriber: callbacks are
synchronous and must be cheap, and events without a subscriber, half of all bytes, are not even parsed.
Readers of the bytes themselves are served by `feed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeGuard

import aiohttp
import structlog

from sidecar.aiokit import (
    END_OF_FRAME,
    Backoff,
    Callbacks,
    SilenceBound,
    WholeFrames,
    aside,
)
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.opencode.boot import Boot, Loss
from sidecar.opencode.frame_feed import FrameFeed
from sidecar.wire.json_text import read_leniently
from sidecar.wire.opencode_events import ChildEvent, ChildGap, SyncEvent, is_prompt_part

_SILENCE_SECONDS = 25.0
"""Longest silence on the event stream, seconds: two missed heartbeats and some slack."""
_SYNC = "sync"
_IGNORED = frozenset({_SYNC, "server.heartbeat", "session.updated", "session.diff"})
"""Copies, signs of life, and what a turn does to its session's title, times and files."""
_IGNORED_BUT_SYNC = _IGNORED - {_SYNC}
_TYPE = re.compile(rb'"payload":\s*\{\s*(?:"id":\s*"[^"\\]*",\s*)?"type":\s*"([^"\\]*)"')
"""The type as opencode writes it, in front. Inside a JSON string the quotes would be escaped."""
_SESSION = re.compile(rb'"sessionID":\s*"([^"\\]*)"')
_OF_MESSAGES = "message."
_NEW_SESSION = "session.created"
_SESSION_AND_PART = re.compile(
    rb'\s*,\s*"properties":\s*\{\s*"sessionID":\s*"([^"\\]*)"'
    rb'(?:\s*,\s*"part":\s*\{\s*"id":\s*"([^"\\]*)")?'
)
"""What follows the type."""
_HEAD_BYTES = 4096

_log = structlog.get_logger(__name__)


EventCallback = Callable[[ChildEvent], None]
GapCallback = Callable[[ChildGap], None]


class Boots(Protocol):
    """What the pump needs of the supervisor."""

    @property
    def boots(self) -> Sequence[Boot]:
        """The boots that serve."""

    def on_serving(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever there is another boot."""

    def on_lost(self, callback: Callable[[Boot, Loss], None]) -> None:
        """Call `callback` with each boot that is over, and with how it was lost."""


@dataclass(eq=False, slots=True)
class _Stream:
    """The events of one boot, and who wants those of which session."""

    subscribers: dict[str, Callbacks[[ChildEvent]]] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    """Sub-agent's session -> the session that a subscriber knows."""
    is_read: bool = False
    is_connected: bool = False
    was_connected: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_read: int = 0


class EventPump:
    """Reads the events of each boot and hands them on. `run` is to be run as a task."""

    def __init__(
        self,
        *,
        supervisor: Boots,
        silence_seconds: float = _SILENCE_SECONDS,
        feed: FrameFeed | None = None,
    ) -> None:
        self.feed = feed or FrameFeed()
        """Every frame of every boot, as it came."""
        self._supervisor = supervisor
        self._silence_seconds = silence_seconds
        self._streams: dict[Boot, _Stream] = {}
        self._gap = Callbacks[[ChildGap]]("gap in the events")
        self._lost = Callbacks[[]]("loss of the events")
        self._sync_callback: Callable[[str, SyncEvent], None] | None = None
        self._idle = Callbacks[[str]]("idle session")
        self._wake = asyncio.Event()
        self.events_seen = 0
        self.events_dropped = 0
        """How many could not be read."""
        self.reconnects = 0
        supervisor.on_serving(self._wake.set)
        supervisor.on_lost(self._forget)

    def subscribe(
        self, boot: Boot, child_session_id: str, callback: EventCallback
    ) -> Callable[[], None]:
        """Call `callback` with each event of the session and its sub-agents in that boot, in order, until the
        returned function is called. Another boot's events of the session, the end of an earlier turn for
        example, do not count."""
        stream = self._of(boot)
        callbacks = stream.subscribers.setdefault(child_session_id, Callbacks("event of opencode"))
        remove = callbacks.add(callback)

        def unsubscribe() -> None:
            remove()
            if not callbacks and stream.subscribers.get(child_session_id) is callbacks:
                del stream.subscribers[child_session_id]
                stream.roots = {s: r for s, r in stream.roots.items() if r != child_session_id}

        return unsubscribe

    def on_gap(self, callback: GapCallback) -> None:
        """Call `callback` after each reconnect, when events flow again."""
        self._gap.add(callback)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a stream of events ends."""
        self._lost.add(callback)

    def on_idle(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the id of each session, or sub-agent's, that opencode says is idle."""
        self._idle.add(callback)

    def on_sync(self, callback: Callable[[str, SyncEvent], None]) -> None:
        """Call `callback` with the directory and each durable event of a session from now on.

        Without one they are not even parsed: they are two fifths of the stream's bytes.
        """
        self._sync_callback = callback

    def is_connected(self, boot: Boot | None) -> bool:
        """Whether the events of that boot are being read."""
        return boot is not None and boot in self._streams and self._streams[boot].is_connected

    def bytes_read(self, boot: Boot) -> int:
        """Return how much was read of the boot's events, heartbeats included; it grows while it lives."""
        return self._streams[boot].bytes_read if boot in self._streams else 0

    async def wait_connected(self, boot: Boot, *, timeout_seconds: float = 10.0) -> None:
        """Wait until the events of `boot` are read; a prompt sent before would be answered unseen.

        Raises ChildUnavailableError when that does not happen in time or the boot is over.
        """
        stream = self._of(boot)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not (stream.is_connected or boot.is_over):
                    stream.changed.clear()
                    await stream.changed.wait()
        if boot.is_over or not stream.is_connected:
            raise ChildUnavailableError(
                "opencode's events are not connected", retry_after_seconds=2.0
            )

    async def run(self) -> None:
        """Follow every boot until cancelled."""
        async with asyncio.TaskGroup() as readers:
            while True:
                for boot in self._supervisor.boots:
                    stream = self._of(boot)
                    if not stream.is_read:
                        stream.is_read = True
                        reading = self._read(boot, stream)
                        readers.create_task(reading, name=f"events of boot {boot.number}")
                self._wake.clear()
                await self._wake.wait()

    def _of(self, boot: Boot) -> _Stream:
        """Return the boot's stream; one that is over has none that is kept."""
        if boot.is_over:
            return self._streams.get(boot, _Stream())
        return self._streams.setdefault(boot, _Stream())

    def _forget(self, boot: Boot, _loss: Loss) -> None:
        if (stream := self._streams.pop(boot, None)) is not None:
            stream.changed.set()

    async def _read(self, boot: Boot, stream: _Stream) -> None:
        backoff = Backoff(first=0.05, longest=2.0)
        while not boot.is_over:
            try:
                await self._follow(boot, stream, backoff)
            # A TimeoutError is an OSError.
            except (ChildError, aiohttp.ClientError, OSError) as error:
                _log.info("event stream lost", boot=boot.number, error=repr(error))
            finally:
                stream.is_connected = False
                self.feed.forget(boot.number)
                self._lost()
            if not boot.is_over:
                await asyncio.sleep(backoff.next_delay())

    async def _follow(self, boot: Boot, stream: _Stream, backoff: Backoff) -> None:
        async with (
            SilenceBound(self._silence_seconds) as bound,
            await bound.wait(boot.client.open_events()) as response,
        ):
            if response.status != 200:
                raise ChildError("opencode refuses its events", upstream_status=response.status)
            whole, is_first = WholeFrames(partial(self.is_wanted, boot)), True
            while data := await bound.wait(response.content.readany()):
                stream.bytes_read += len(data)
                size = whole.held_bytes + len(data)
                frames = await aside(size, partial(whole.feed, data))
                if not frames:
                    continue
                if is_first:
                    is_first = False
                    self.feed.greet(boot.number, frames.partition(END_OF_FRAME)[0] + END_OF_FRAME)
                self.feed.put(frames)
                wanted = {*stream.subscribers, *stream.roots}
                for event in await aside(len(frames), partial(self._read_all, frames, wanted)):
                    if event["payload"]["type"] == "server.connected":
                        backoff.reset()
                        self._note_connected(boot, stream)
                    else:
                        self._dispatch(stream, event)

    def _note_connected(self, boot: Boot, stream: _Stream) -> None:
        is_first, stream.was_connected = not stream.was_connected, True
        stream.is_connected = True
        stream.changed.set()
        _log.debug("event stream connected", boot=boot.number)
        if not is_first:
            self.reconnects += 1
            self._gap(ChildGap(boot.number))

    def is_wanted(self, boot: Boot, beginning: bytes) -> bool:
        """Whether the rest of a large event is read, given its beginning.

        Left out are durable copies, echoes of prompts, and what sessions without subscribers do. What does
        not show it in front is read. Called from a thread: it only looks.
        """
        if self.feed.readers:
            return True  # they get everything
        head = beginning[:_HEAD_BYTES]
        if not head.startswith(b"data:"):
            return False
        if (type_ := _TYPE.search(head)) is None:
            return True
        if type_[1].decode() in (_IGNORED if self._sync_callback is None else _IGNORED_BUT_SYNC):
            return False
        stream, front = self._streams.get(boot), _SESSION_AND_PART.match(head, type_.end())
        if stream is None or front is None:
            return True
        session_id, part_id = front[1].decode(), (front[2] or b"").decode()
        is_followed = stream.roots.get(session_id, session_id) in stream.subscribers
        return is_followed and not is_prompt_part(part_id)

    def _read_all(self, frames: bytes, sessions: Collection[str]) -> list[dict[str, Any]]:
        """Return the events, of messages only those of `sessions`. Runs in a thread when they are large."""
        events = []
        wanted: Collection[str] | None = sessions
        is_one = frames.find(END_OF_FRAME) == len(frames) - len(END_OF_FRAME)
        # A single one, which may be large, is not copied.
        for frame in [frames] if is_one else frames.split(END_OF_FRAME):
            event = self._read_or_drop(frame, wanted)
            if event is None:
                continue
            events.append(event)
            if event["payload"]["type"] == _NEW_SESSION:
                wanted = None  # it may be a sub-agent's, whose messages are wanted from here on
        return events

    def _read_or_drop(
        self, frame: bytes, sessions: Collection[str] | None
    ) -> dict[str, Any] | None:
        """Return the event, if it is one. What is none must not end the reading of all sessions' events."""
        try:
            return read_frame(frame, with_sync=self._sync_callback is not None, sessions=sessions)
        except ValueError as error:
            self.events_dropped += 1
            # The first, the second, the fourth, ...: never a flood.
            if self.events_dropped.bit_count() == 1:
                _log.warning(
                    "event dropped",
                    error=str(error),
                    size_bytes=len(frame),
                    dropped=self.events_dropped,
                )
            return None

    def _dispatch(self, stream: _Stream, frame: dict[str, Any]) -> None:
        payload = frame["payload"]
        self.events_seen += 1
        if payload["type"] == _SYNC:
            self._dispatch_sync(frame)
            return
        properties = payload.get("properties", {})
        session_id = properties.get("sessionID")
        if not isinstance(session_id, str):
            return
        if payload["type"] == "session.idle":
            self._idle(session_id)
        if payload["type"] == _NEW_SESSION and (parent := _parent_id(properties)) is not None:
            root = stream.roots.get(parent, parent)
            if root in stream.subscribers:
                stream.roots[session_id] = root
        root_id = stream.roots.get(session_id, session_id)
        callbacks = stream.subscribers.get(root_id)
        if callbacks is None:
            return
        event = ChildEvent(payload["type"], properties, frame.get("directory"), session_id, root_id)
        callbacks(event)

    def _dispatch_sync(self, frame: dict[str, Any]) -> None:
        event, directory = SyncEvent.read(frame["payload"].get("syncEvent")), frame.get("directory")
        if self._sync_callback is not None and event is not None and isinstance(directory, str):
            self._sync_callback(directory, event)


def _parent_id(properties: Mapping[str, Any]) -> str | None:
    info = properties.get("info")
    parent = info.get("parentID") if isinstance(info, dict) else None
    return parent if isinstance(parent, str) else None


def read_frame(
    frame: bytes, *, with_sync: bool = False, sessions: Collection[str] | None = None
) -> dict[str, Any] | None:
    """Return the event of a frame, None for one without subscribers. Raises ValueError.

    Of messages, the bulk of all events, only those of `sessions` are wanted, unless it is None.
    """
    ignored = _IGNORED_BUT_SYNC if with_sync else _IGNORED
    if not frame.startswith(b"data:"):
        return None
    in_front = _TYPE.search(frame)
    if in_front is not None:
        kind = in_front[1].decode()
        if kind in ignored:
            return None
        if sessions is not None and kind.startswith(_OF_MESSAGES):
            # A tool's input may have a field of that name, too: none of them must be wanted.
            named = _SESSION.findall(frame, in_front.end())
            if named and not any(name.decode(errors="replace") in sessions for name in named):
                return None
    event = read_leniently(frame[5:])
    if not _is_event(event):
        raise ValueError("not an event")
    return None if event["payload"]["type"] in ignored else event


def _is_event(read: Any) -> TypeGuard[dict[str, Any]]:
    payload = read.get("payload") if isinstance(read, dict) else None
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("type"), str)
        and isinstance(payload.get("properties", {}), dict)
    )
