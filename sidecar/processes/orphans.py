"""Processes that outlive the child: find them by a marker in their environment, kill, reap.

opencode's bash tool starts every command in a session of its own, so neither a signal to opencode nor
one to its process group reaches them. Each inherits the child's environment, though, and with it
`SIDECAR_CHILD_MARKER`, which is random per data directory: two sidecars never touch each other's.
An opencode that somebody else starts carries the same marker in every boot, the next one included, so
there only what our plug-in marked as a shell is looked for.

Everything here blocks (it reads /proc); call it in a thread. Without /proc it does nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

MARKER_VARIABLE = "SIDECAR_CHILD_MARKER"
SHELL_MARKER_VARIABLE = "SIDECAR_SHELL_MARKER"
"""The same value, set by our plug-in: in the shells of agents and in nothing else."""
GIT_MARKER_VARIABLE = "SIDECAR_GIT_MARKER"
"""The same value, set for our own git and its helpers: the end of a child is not theirs."""

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_MAX_ROUNDS = 20
"""Killing races with forking, so the scan repeats until it finds nothing; a fork bomb ends it here."""
_ROUND_PAUSE_SECONDS = 0.02


def load_marker(path: Path) -> str:
    """Return the marker kept in `path`, made on first use. Raises OSError, also when it is no text."""
    try:
        if marker := path.read_text(encoding="ascii").strip():
            return marker
    except FileNotFoundError:
        pass
    except UnicodeDecodeError as error:
        problem = "not a marker of ours; delete it when no process of an earlier run is left"
        raise OSError(errno.EINVAL, problem, str(path)) from error
    marker = secrets.token_hex(16)
    path.write_text(marker + "\n", encoding="ascii")
    return marker


def marker_for(relay_token: str) -> str:
    """Return the marker of an attached opencode: both containers can tell it, and it reveals nothing."""
    return hashlib.sha256(b"marker of " + relay_token.encode()).hexdigest()[:32]


def become_subreaper() -> bool:
    """Have orphans below us re-parented to us instead of to init, so that we can reap them."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def is_marked(pid: int, marker: str, variable: str = MARKER_VARIABLE) -> bool:
    """Whether that process carries the marker, as far as we may look."""
    return f"{variable}={marker}".encode() in _environ(pid).split(b"\0")


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
