"""Leftover processes: of an attached opencode, and, where we are process 1, of any program.

What we start ourselves has a guard (`launch`), and sessions have keepers (`confine.c`): both end all their
descendants. An opencode in another container has neither. There the shells are found by a mark that our
plug-in puts into their environment, which a process can remove. Where we are process 1, zombies are reaped.

Everything here blocks (it reads /proc); call it in a thread. Without /proc it does nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

MARKER_VARIABLE = "SIDECAR_CHILD_MARKER"
SHELL_MARKER_VARIABLE = "SIDECAR_SHELL_MARKER"
"""The same value, set by our plug-in: in the shells of agents and in nothing else."""

_PROC = Path("/proc")
_MAX_ROUNDS = 20
"""Killing races with forking, so the scan repeats until it finds nothing; a fork bomb ends it here."""
_ROUND_PAUSE_SECONDS = 0.02


def marker_for(relay_token: str) -> str:
    """Return the marker of an attached opencode: both containers can compute it, and it reveals nothing."""
    return hashlib.sha256(b"marker of " + relay_token.encode()).hexdigest()[:32]


def is_marked(pid: int, marker: str, variable: str = MARKER_VARIABLE) -> bool:
    """Whether that process carries the marker, as far as we may look."""
    return f"{variable}={marker}".encode() in _environ(pid).split(b"\0")


def has_variable(pid: int, variable: str) -> bool:
    """Whether that process was started with the variable, as far as we may look."""
    return any(entry.startswith(f"{variable}=".encode()) for entry in _environ(pid).split(b"\0"))


def survivors(marker: str, variable: str = MARKER_VARIABLE) -> list[int]:
    """Return the ids of live processes that carry the marker, except our own."""
    return [pid for pid in _pids() if pid != os.getpid() and is_marked(pid, marker, variable)]


def sweep(marker: str, variable: str = MARKER_VARIABLE) -> int:
    """SIGKILL everything that carries the marker, and reap what is ours. Return how many were killed."""
    killed: set[int] = set()
    for _ in range(_MAX_ROUNDS):
        found = survivors(marker, variable)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        if not found:
            break
        time.sleep(_ROUND_PAUSE_SECONDS)
    reap(owned=())
    return len(killed)


def reap(*, owned: Collection[int]) -> int:
    """Collect dead orphans that were re-parented to us. Return how many.

    Only those of another session than ours (the child and all below it are in others), and not the
    `owned` ids, whose exit status asyncio is waiting for.
    """
    count = 0
    ours = os.getsid(0)
    for pid in _pids():
        if pid in owned or not _is_zombie_of(pid, os.getpid()):
            continue
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            if os.getsid(pid) != ours and os.waitpid(pid, os.WNOHANG)[0] == pid:
                count += 1
    return count


def _pids() -> Iterator[int]:
    if not _PROC.is_dir():
        return
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            yield int(entry.name)


def _environ(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""  # gone, or another user's


def _is_zombie_of(pid: int, parent: int) -> bool:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    state, ppid = stat.rpartition(b") ")[2].split()[:2]  # the name before it may hold anything
    return state == b"Z" and int(ppid) == parent
