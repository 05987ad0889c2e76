"""Is a child that does not answer dead, or only busy?

opencode runs its JavaScript in one thread: under load it may answer nothing for a minute while it works. So
an unanswered check counts against it only if nothing else shows that it lives: processor time, events, model
requests. Nor does time count in which our own event loop was late or the child waited for a processor: on a
crowded machine an idle child cannot answer in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

SILENT = "no answer to health checks"
OVERWORKED = "no answer to health checks for too long, though it worked"
"""Why a child is given up. The second does not count as a crash."""
UNRESPONSIVE = frozenset({SILENT, OVERWORKED})

_LEAST_SHARE = 0.02
"""Of the time: a process that works less than this does not work. A stopped one has 0, and the timers and
collectors of one that hangs stay below."""
_LEAST_SECONDS = 0.02
"""Two steps of the kernel's clock."""
_LOOK_SECONDS = 1.0
"""Processor time is looked at for spans of at least this length."""


@dataclass(frozen=True, slots=True)
class Work:
    """Since the start of the process, seconds."""

    used: float = 0.0
    """Processor time."""
    waited: float = 0.0
    """When it was ready to run and had no processor; 0 where the kernel does not report it."""


def read_work(pid: int) -> Work:
    """Return what the process has done. Blocks.

    With it count all processes of its session: the real program may be below a launcher. The agent's tools
    have sessions of their own and do not count: they go on while opencode is stopped.
    """
    try:
        session = os.getsid(pid)
    except OSError:
        return Work()
    used = waited = 0.0
    for other in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error, ValueError, IndexError):
            if os.getsid(other) == session:
                times = psutil.Process(other).cpu_times()
                used += times.user + times.system
                waited += _waited_seconds(other)
    return Work(used, waited)


def _waited_seconds(pid: int) -> float:
    """Return for how long the main thread was ready to run and had no processor."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    except OSError:
        return 0.0  # another kernel


class Pulse:
    """Counts what speaks against one boot of the child: `missed` after each unanswered check, `answered`
    after each other one.

    `pid` is None while the process is not known; `signs` returns a number that grows with whatever arrives
    from the child.
    """

    def __init__(
        self,
        *,
        pid: Callable[[], int | None],
        signs: Callable[[], int],
        silence_seconds: float,
        limit_seconds: float,
        read_work: Callable[[int], Work] = read_work,
    ) -> None:
        self._pid = pid
        self._signs = signs
        self._silence_seconds = silence_seconds
        self._limit_seconds = limit_seconds
        self._read_work = read_work
        self._look_seconds = min(_LOOK_SECONDS, silence_seconds / 4)
        self._unanswered = self._silent = self._since_look = 0.0
        self._seen: tuple[int, Work] | None = None

    async def begin(self) -> None:
        """Note what the child has done until now; to be called before the first check."""
        self._seen = await self._look()

    def answered(self) -> None:
        """The child answers: nothing speaks against it."""
        self._unanswered = self._silent = self._since_look = 0.0
        self._seen = None

    async def missed(self, *, planned_seconds: float, took_seconds: float) -> str | None:
        """Return why the child is to be given up, None if it is not.

        The check was not answered. It was to take `planned_seconds` at most; what it took above that was
        the lateness of our own loop.
        """
        seconds = min(planned_seconds, took_seconds)
        self._unanswered += seconds
        self._silent += seconds
        self._since_look += seconds
        if self._seen is None:
            self._seen, self._since_look = await self._look(), 0.0
        elif self._since_look >= self._look_seconds:
            (signs, work), (signs_before, before) = await self._look(), self._seen
            least = max(_LEAST_SECONDS, _LEAST_SHARE * self._since_look)
            if signs != signs_before or work.used - before.used >= least:
                self._silent = 0.0
            else:
                self._silent -= min(self._since_look, max(0.0, work.waited - before.waited))
            self._seen, self._since_look = (signs, work), 0.0
        if self._silent >= self._silence_seconds:
            return SILENT
        return OVERWORKED if self._unanswered >= self._limit_seconds else None

    async def _look(self) -> tuple[int, Work]:
        pid = self._pid()
        work = Work() if pid is None else await asyncio.to_thread(self._read_work, pid)
        return self._signs(), work
