"""The keepers of sessions (`confine.c`): finding them and ending what is below them.

A keeper is the ancestor of everything that runs for its session, whatever that has done to its parents, its
session id, its name or its environment. It ends all of it at SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

_PROC = Path("/proc")
_NAME = b"session-keeper"
_END_SECONDS = 10.0


def end_session(sockets: Path, name: str, *, of: Collection[int] | None = None) -> bool:
    """End every process of that session; return whether there were any. Blocks, for 10 s at most.

    With `of` only those that these processes of opencode have started.
    """
    ended = False
    for pid in list(_keepers(os.fsencode(sockets), os.fsencode(name), of)):
        with contextlib.suppress(OSError):
            _end(pid)
            ended = True
    return ended


def _end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        select.select([descriptor], [], [], _END_SECONDS)
    finally:
        os.close(descriptor)


def _keepers(sockets: bytes, name: bytes, of: Collection[int] | None) -> Iterator[int]:
    """Yield those of the session, and what pretends to be one: that is its own process, too.

    Its server has the same arguments and goes first or with it.
    """
    if sys.platform != "linux":
        return
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            arguments = (_PROC / entry.name / "cmdline").read_bytes().split(b"\0")
            if arguments[0] != _NAME or arguments[3:5] != [sockets, name]:
                continue
            if of is None or arguments[2] in {b"%d" % opencode for opencode in of}:
                yield int(entry.name)
