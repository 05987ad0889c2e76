"""Ends opencode when its sidecar can no longer say that it may run: `python -m sidecar.processes.guardian`.

A process of its own, because the sidecar may be stopped, hang, or be killed, and opencode would go on
working on a session that another pod has taken meanwhile. It reads lines: `children <pid> ...` and `beat`.
After `bound` seconds without a beat, or when the pipe ends, it kills these children; the guard of each
(`launch`) then ends everything below it. Nothing but the standard library is loaded.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence

_PIPE_BYTES = 4096


class Guardian:
    """Starts the guardian process and speaks to it. Methods may be called from any thread."""

    def __init__(self, *, bound_seconds: float) -> None:
        self._bound_seconds = bound_seconds
        self._pids: Sequence[int] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def watch(self, pids: Collection[int]) -> None:
        """Say which processes are children."""
        with self._lock:
            self._pids = tuple(pids)
            self._send_children()

    def beat(self) -> None:
        """Say that the child may go on. A guardian that is gone is started again."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
            if self._process is None:
                self._start()
            self._send("beat\n")

    def close(self) -> None:
        """End it. What runs by then is killed."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()

    def _start(self) -> None:
        command = [sys.executable, "-I", "-m", __name__, str(self._bound_seconds)]
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            command, stdin=subprocess.PIPE, start_new_session=True, env={}
        )
        self._send_children()

    def _send_children(self) -> None:
        self._send(" ".join(["children", *map(str, self._pids)]) + "\n")

    def _send(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):  # it is gone: the next beat starts another
            os.write(self._process.stdin.fileno(), line.encode())


def main() -> None:
    """Watch until the pipe ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the sidecar, which stops its child itself
    bound = float(sys.argv[1])
    pids, rest = list[int](), b""
    heard_at, is_killed = time.monotonic(), False
    while True:
        left = heard_at + bound - time.monotonic()
        if select.select([0], [], [], max(0.0, left if not is_killed else bound))[0]:
            data = os.read(0, _PIPE_BYTES)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                word, _, value = line.decode().partition(" ")
                if word == "beat":
                    heard_at, is_killed = time.monotonic(), False
                elif word == "children":
                    pids, is_killed = [int(pid) for pid in value.split()], False
            if not data:
                _kill(pids)
                return
        if time.monotonic() - heard_at >= bound and not is_killed:
            _kill(pids)
            is_killed = True


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
