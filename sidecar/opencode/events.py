"""The one subscription to `/global/event`: reconnect, fan-out by session, and word of every gap.

Wire format: SSE frames of one `data:` line, `{"directory", "payload": {"id", "type", "properties"}}`; no ids,
no replay. `payload.type == "sync"` are durable copies of other events. A heartbeat comes every 10 s. The
child's queue for a slow reader grows without bound, so reading never waits for anybody: callbacks are
synchronous and must be cheap, and what nobody wants, half of all bytes, is not even parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
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
from sidecar.opencode.client import ChildClient
from sidecar.wire.json_text import read_leniently
from sidecar.wire.opencode_events import ChildEvent, ChildGap, SyncEvent

_SILENCE_SECONDS = 25.0
"""Two heartbeats missed and some."""
_SYNC = "sync"
_IGNORED = frozenset({_SYNC, "server.heartbeat", "session.updated", "session.diff"})
"""Copies, signs of life, and what a turn does to its session's title, times and files."""
_IGNORED_BUT_SYNC = _IGNORED - {_SYNC}
_TYPE = re.compile(rb'"payload":\s*\{\s*(?:"id":\s*"[^"\\]*",\s*)?"type":\s*"([^"\\]*)"')
"""The type as opencode writes it, in front. Inside a JSON string the quotes would be escaped."""

_log = structlog.get_logger(__name__)


EventCallback = Callable[[ChildEvent], None]
GapCallback = Callable[[ChildGap], None]


class Boots(Protocol):
    """What the pump needs of the supervisor."""

    boot: int

    @property
    def client(self) -> ChildClient | None:
        """The client of the current boot while it serves."""

    def on_state_change(self, callback: Callable[[Any, int], None]) -> None:
        """Register a callback."""


class EventPump:
    """Reads the events of each boot and hands them on. `run` is to be run as a task."""

    def __init__(self, *, supervisor: Boots, silence_seconds: float = _SILENCE_SECONDS) -> None:
        self._supervisor = supervisor
        self._silence_seconds = silence_seconds
        self._subscribers: dict[str, Callbacks[[ChildEvent]]] = {}
        self._gap = Callbacks[[ChildGap]]("gap in the events")
        self._lost = Callbacks[[]]("loss of the events")
        self._sync_callback: Callable[[str, SyncEvent], None] | None = None
        self._idle = Callbacks[[str]]("idle session")
        self._roots: dict[str, str] = {}
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._last_boot = 0
        self.connected_boot = 0
        """The boot whose events are being read, 0 when none."""
        self.bytes_read = 0
        """Of the streams of events, heartbeats included: it grows while the child lives."""
        self.events_seen = 0
        self.events_dropped = 0
        """How many could not be read."""
        self.reconnects = 0
        supervisor.on_state_change(lambda _state, _boot: self._wake.set())

    def subscribe(self, child_session_id: str, callback: EventCallback) -> Callable[[], None]:
        """Call `callback` with each event of the session and its sub-agents, in order, until the returned
        function is called."""
        callbacks = self._subscribers.setdefault(child_session_id, Callbacks("event of opencode"))
        remove = callbacks.add(callback)

        def unsubscribe() -> None:
            remove()
            if not callbacks and self._subscribers.get(child_session_id) is callbacks:
                del self._subscribers[child_session_id]
                self._roots = {s: r for s, r in self._roots.items() if r != child_session_id}

        return unsubscribe

    def on_gap(self, callback: GapCallback) -> None:
        """Call `callback` after each reconnect or restart, when events flow again."""
        self._gap.add(callback)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the stream of events ends."""
        self._lost.add(callback)

    def on_idle(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the id of each session, or sub-agent's, that opencode says is idle."""
        self._idle.add(callback)

    def on_sync(self, callback: Callable[[str, SyncEvent], None]) -> None:
        """Call `callback` with the directory and each durable event of a session from now on.

        Without one they are not even parsed: they are two fifths of the stream's bytes.
        """
        self._sync_callback = callback

    async def wait_connected(self, boot: int, *, timeout_seconds: float = 10.0) -> None:
        """Wait until the events of `boot` are read; a prompt sent before would be answered unseen.

        Raises ChildUnavailableError when that does not happen in time or the boot is over.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(
                    lambda: self.connected_boot == boot or self._supervisor.boot != boot
                )
        if self.connected_boot != boot:
            raise ChildUnavailableError(
                "opencode's events are not connected", retry_after_seconds=2.0
            )

    async def run(self) -> None:
        """Follow boot after boot until cancelled."""
        backoff = Backoff(first=0.05, longest=2.0)
        while True:
            client, boot = await self._next_client()
            try:
                await self._follow(client, boot, backoff)
            # A TimeoutError is an OSError.
            except (ChildError, aiohttp.ClientError, OSError) as error:
                _log.info("event stream lost", boot=boot, error=repr(error))
            finally:
                self.connected_boot = 0
                self._lost()
            await asyncio.sleep(backoff.next_delay())

    async def _next_client(self) -> tuple[ChildClient, int]:
        while (client := self._supervisor.client) is None:
            self._wake.clear()
            await self._wake.wait()
        return client, self._supervisor.boot

    async def _follow(self, client: ChildClient, boot: int, backoff: Backoff) -> None:
        async with (
            SilenceBound(self._silence_seconds) as bound,
            await bound.wait(client.open_events()) as response,
        ):
            if response.status != 200:
                raise ChildError("opencode refuses its events", upstream_status=response.status)
            whole = WholeFrames()
            while data := await bound.wait(response.content.readany()):
                self.bytes_read += len(data)
                size = whole.held_bytes + len(data)
                for event in await aside(size, partial(self._read_all, whole, data)):
                    if event["payload"]["type"] == "server.connected":
                        backoff.reset()
                        await self._note_connected(boot)
                    else:
                        self._dispatch(event)

    async def _note_connected(self, boot: int) -> None:
        is_first, is_same = self._last_boot == 0, self._last_boot == boot
        self._last_boot = self.connected_boot = boot
        async with self._changed:
            self._changed.notify_all()
        _log.debug("event stream connected", boot=boot)
        if is_first:
            return
        self.reconnects += 1
        gap = ChildGap("reconnected" if is_same else "restarted", boot)
        self._gap(gap)

    def _read_all(self, whole: WholeFrames, data: bytes) -> list[dict[str, Any]]:
        """Return the events that are complete with these bytes. Runs in a thread when they are large."""
        found = map(self._read_or_drop, whole.feed(data).split(END_OF_FRAME))
        return [event for event in found if event is not None]

    def _read_or_drop(self, frame: bytes) -> dict[str, Any] | None:
        """Return the event, if it is one. What is none must not end the reading of all sessions' events."""
        try:
            return read_frame(frame, with_sync=self._sync_callback is not None)
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

    def _dispatch(self, frame: dict[str, Any]) -> None:
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
        if payload["type"] == "session.created" and (parent := _parent_id(properties)) is not None:
            root = self._roots.get(parent, parent)
            if root in self._subscribers:
                self._roots[session_id] = root
        root_id = self._roots.get(session_id, session_id)
        callbacks = self._subscribers.get(root_id)
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


def read_frame(frame: bytes, *, with_sync: bool = False) -> dict[str, Any] | None:
    """Return the event of a frame, None for one that nobody wants. Raises ValueError."""
    ignored = _IGNORED_BUT_SYNC if with_sync else _IGNORED
    if not frame.startswith(b"data:"):
        return None
    in_front = _TYPE.search(frame)
    if in_front is not None and in_front[1].decode() in ignored:
        return None
    event = read_leniently(frame[5:])
    if not _is_event(event):
        raise ValueError("it is no event")
    return None if event["payload"]["type"] in ignored else event


def _is_event(read: Any) -> TypeGuard[dict[str, Any]]:
    payload = read.get("payload") if isinstance(read, dict) else None
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("type"), str)
        and isinstance(payload.get("properties", {}), dict)
    )
