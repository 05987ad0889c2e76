"""Keeps a session from taking the disk: a bound for each, and what happens when the disk is nearly full.

Directories are measured where something may write to them: sessions with a running turn or with processes.
One that holds more than its bound has its processes ended and its turn fails with `session.error`. So that
its files can be deleted it may go on after that, as long as it takes no more than it did. When the disk is
nearly full, the session that is filling it is stopped in the same way; one that is faster than this finds the
disk full, and then a reserve is given to the store, which waits for it (`store.sqlite`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from sidecar.config import StorageSettings
from sidecar.managed.child.sessions import EndProcesses
from sidecar.managed.turns.failures import Failure
from sidecar.managed.workspaces.disk_use import DiskUse, FreeSpace, disk_use, free_space
from sidecar.store.reserve import Reserve

_LOOK_SECONDS = 0.5
"""Pause between looks at the free space (one system call) and at what is to be measured."""
_MEASURE_SECONDS = 5.0
"""Shortest pause between two measurements of a session that no tool's end asks for."""
_SHARE = 20
"""A session is measured again only after that many times what its last measurement took, and all measuring
together takes a fifth of a processor at most: a directory of a million files costs seconds."""
_PAUSE_SHARE = 4
_SCARCE_SHARE = 4
"""On a small disk, the share of it that counts as nearly full when no more is free."""
_RESERVE_SHARE = 8
"""How much of what counts as nearly full is kept for the store."""
_GROWTH_SHARE = 4
"""Nearly full, a session is stopped that would fill the rest in four more looks like the last."""
_NOTABLE_BYTES = 1_000_000
_SLACK_SHARE = 100
"""By how much of the bound a session above it may grow: deleting needs some space, too."""

_log = structlog.get_logger(__name__)


class SpaceSession(Protocol):
    """What sessions are to this module."""

    def running_sessions(self) -> Iterable[str]:
        """Return the ids of the sessions with a running turn."""

    def end_turn_for(self, session_id: str, failure: Failure) -> bool:
        """End the session's turn with that failure; return whether there was one."""


@dataclass(slots=True)
class _Measured:
    size_bytes: int
    due: float
    """When it may be measured again, monotonic."""
    earliest: float
    """The same when a tool has ended."""


class SpaceWatch:
    """Measures and stops. `run` is to be run as a task."""

    def __init__(
        self,
        *,
        settings: StorageSettings,
        sessions: SpaceSession,
        directories_of: Callable[[str], list[Path]],
        end_processes: EndProcesses,
        keepers_dir: Path,
        free: Callable[[Path], FreeSpace] = free_space,
    ) -> None:
        self._bound = settings.max_workspace_bytes
        self._min_free = settings.min_free_bytes
        self._workspaces_dir = settings.workspaces_dir
        self._data_dir = settings.data_dir
        self._reserve = Reserve(settings.data_dir / "reserve")
        self._sessions = sessions
        self._directories_of = directories_of
        self._end_processes = end_processes
        self._keepers_dir = keepers_dir
        self._free = free
        self._measured: dict[str, _Measured] = {}
        self._debts: dict[str, int] = {}
        self._has_news = asyncio.Event()
        self.stopped = 0
        """How often a session was stopped."""

    @property
    def largest_bytes(self) -> int:
        """The size of the largest session of those in which something runs."""
        return max((known.size_bytes for known in self._measured.values()), default=0)

    def note_tool_end(self, session_id: str) -> None:
        """A tool of the session has ended: it is measured now."""
        known = self._measured.get(session_id)
        if known is not None:
            known.due = known.earliest
        self._has_news.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._has_news.clear()
            try:
                await self.look()
            except OSError as error:
                _log.warning("disk use cannot be read", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), _LOOK_SECONDS)

    async def look(self) -> None:
        """Look once: at the free space, and at one session at most. Raises OSError."""
        running = set(self._sessions.running_sessions())
        active = sorted(running | await asyncio.to_thread(self._with_processes))
        self._measured = {id_: m for id_, m in self._measured.items() if id_ in active}
        space = await asyncio.to_thread(self._free, self._workspaces_dir)
        if space.free_bytes < self._scarce(space):
            await self._relieve(active, space)
            await asyncio.to_thread(self._release_reserve)
            return
        await asyncio.to_thread(self._hold_reserve)
        if not active:
            return
        due = {id_: m.due if (m := self._measured.get(id_)) else 0.0 for id_ in active}
        first = min(due, key=lambda id_: due[id_])
        if due[first] <= time.monotonic():
            await self._check(first)
            self._has_news.set()  # the next one may be due as well

    def _scarce(self, space: FreeSpace) -> int:
        return min(self._min_free, space.total_bytes // _SCARCE_SHARE)

    def _release_reserve(self) -> None:
        space = self._free(self._data_dir)
        if self._reserve.is_held and space.free_bytes < self._scarce(space) // _RESERVE_SHARE:
            self._reserve.release()
            _log.warning("the disk is full, the store was given its reserve")

    def _hold_reserve(self) -> None:
        if not self._reserve.is_held:
            space = self._free(self._data_dir)
            if space.free_bytes > 2 * self._scarce(space):
                self._reserve.hold(self._scarce(space) // _RESERVE_SHARE)

    def _with_processes(self) -> set[str]:
        """Return the sessions that have a keeper, see `processes/confine.c`. Blocks."""
        if not self._keepers_dir.is_dir():
            return set()
        names = {path.name for path in self._keepers_dir.iterdir() if path.is_socket()}
        return {name for name in names if not name.startswith(".")}

    async def _check(self, session_id: str) -> None:
        """Measure a session; stop it when it is too large."""
        use = await self._measure(session_id)
        debt = self._debts.get(session_id)
        allowed = self._bound if debt is None else debt + self._bound // _SLACK_SHARE
        if use.is_whole and use.size_bytes <= self._bound:
            self._debts.pop(session_id, None)
        elif use.is_whole and use.size_bytes <= allowed:
            assert debt is not None
            self._debts[session_id] = min(debt, use.size_bytes)
        else:
            await self._stop(session_id, lambda use: _too_large(use, self._bound))

    async def _measure(self, session_id: str) -> DiskUse:
        began = time.monotonic()
        use = await asyncio.to_thread(disk_use, self._directories_of(session_id))
        now = time.monotonic()
        earliest = now + _SHARE * (now - began)
        self._measured[session_id] = _Measured(
            use.size_bytes, max(earliest, now + _MEASURE_SECONDS), earliest
        )
        await asyncio.sleep(_PAUSE_SHARE * (now - began))
        return use

    async def _stop(self, session_id: str, text: Callable[[DiskUse], str]) -> None:
        """End the session's processes, and its turn with what `text` says of its size by then."""
        had_processes = await self._end_processes(self._directories_of(session_id)[0])
        use = await self._measure(session_id)
        message = text(use)
        failure = Failure("unknown_error", message)
        if self._sessions.end_turn_for(session_id, failure):
            self._debts[session_id] = use.size_bytes
        elif not had_processes:
            return  # there was nothing to stop; the next turn reports it
        self.stopped += 1
        _log.warning("session stopped", session=session_id, reason=message)

    async def _relieve(self, active: list[str], space: FreeSpace) -> None:
        """Stop the session that is filling the disk."""
        growth = {}
        for session_id in active:
            known = self._measured.get(session_id)
            use = await self._measure(session_id)
            if known is not None:
                growth[session_id] = use.size_bytes - known.size_bytes
        if not growth:
            return
        session_id = max(growth, key=lambda name: growth[name])
        if growth[session_id] >= max(space.free_bytes // _GROWTH_SHARE, _NOTABLE_BYTES):
            await self._stop(session_id, lambda use: _too_fast(use, space))


def _too_large(use: DiskUse, bound: int) -> str:
    size = f"{use.size_bytes:,} bytes in {use.entries:,} files and directories"
    remedy = "have files deleted, then go on"
    if not use.is_whole:
        size, remedy = f"more than can be measured, beyond {size}", "delete the session"
    return (
        f"this session's directory holds {size}; it may hold {bound:,} bytes "
        f"(SIDECAR_STORAGE_MAX_WORKSPACE_BYTES). Its processes were ended; {remedy}"
    )


def _too_fast(use: DiskUse, space: FreeSpace) -> str:
    return (
        f"the disk is nearly full ({space.free_bytes:,} of {space.total_bytes:,} bytes free, "
        f"SIDECAR_STORAGE_MIN_FREE_BYTES) and this session was filling it: its directory holds "
        f"{use.size_bytes:,} bytes. Its processes were ended; have files deleted, then go on"
    )
