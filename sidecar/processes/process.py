"""One child process and all below it: spawn, read its lines, signal, wait. Mechanism only.

Built on asyncio's protocol interface rather than on `asyncio.subprocess.Process`, whose `wait()`
also waits until the output pipes close: a grandchild that inherited them could hold it open indefinitely.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

Stream = Literal["stdout", "stderr"]
LineCallback = Callable[[Stream, str], None]

_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_MAX_LINE_BYTES = 8192
"""A longer line is passed on in pieces of this size; the child may print megabytes of JSON."""
_OUTPUT_GRACE_SECONDS = 0.5
"""How long after the exit we still wait for the pipes, for the sake of the last words."""
_REPORT_BYTES = 32
"""More than a process id has."""
_LAUNCHER = Path(__file__).with_name("launch.py")


def guarded(command: Sequence[str], *, report: int) -> list[str]:
    """Return the command line for `command` (first item: an absolute path) under a guard, see `launch`.

    Nothing below it outlives it, or us. The descriptor `report` must be passed on; the command's process id
    is written to it. SIGTERM to the guard reaches the command, SIGQUIT ends everything.
    To be started from the main thread: the parent-death signal is tied to the thread that forks.
    """
    parent = str(os.getpid())
    return [sys.executable, "-I", "-S", str(_LAUNCHER), parent, str(report), *command]


class ChildProcess:
    """A running child. Create with `spawn`.

    It has a session of its own, so that Ctrl-C on our terminal reaches only us and we can drain, and a
    guard (`launch`), so that nothing that it started outlives it, or us.
    """

    def __init__(
        self, transport: asyncio.SubprocessTransport, exited: asyncio.Future[int], pid: int
    ) -> None:
        self._transport = transport
        self._exited = exited
        self._pid = pid

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        on_line: LineCallback,
    ) -> ChildProcess:
        """Start `command` (first item: an absolute path) with exactly `env`.

        Must run on the main thread, see `guarded`. `on_line(stream, text)` is called on the loop
        for each line. Raises OSError.
        """
        loop = asyncio.get_running_loop()
        exited: asyncio.Future[int] = loop.create_future()
        reading, report = os.pipe()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: _OutputProtocol(on_line, exited),
                *guarded(command, report=report),
                stdin=asyncio.subprocess.DEVNULL,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=(report,),
            )
            os.close(report)
            report = -1
            try:
                said = await _first_words(reading)
            except BaseException:  # cancelled: no caller will own this process
                with contextlib.suppress(ProcessLookupError):
                    transport.send_signal(signal.SIGQUIT)
                raise
        finally:
            os.close(reading)
            if report >= 0:
                os.close(report)
        return cls(transport, exited, int(said or transport.get_pid()))

    @property
    def pid(self) -> int:
        """The child's process id; after its exit the kernel may give it to another process."""
        return self._pid

    @property
    def guard_pid(self) -> int:
        """The process id of its guard, which is the one that we have to wait for."""
        return self._transport.get_pid()

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the signal number for a signal; None while it or anything below it runs."""
        return self._exited.result() if self._exited.done() else None

    async def wait(self) -> int:
        """Wait for the exit and return the status. May be awaited by many."""
        return await asyncio.shield(self._exited)

    def terminate(self) -> None:
        """Send SIGTERM; nothing happens if the child is gone."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child and everything below it at once; nothing happens if it is gone."""
        self._signal(signal.SIGQUIT)

    def _signal(self, number: signal.Signals) -> None:
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(number)


async def _first_words(descriptor: int) -> bytes:
    """Return the first bytes that are written to a pipe, b"" when it is closed before.

    It is not read in a thread, which after a cancellation would go on reading: from a descriptor that is
    closed, or that is something else's by then.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _REPORT_BYTES)


class _OutputProtocol(asyncio.SubprocessProtocol):
    """Cuts the output into lines and resolves `exited` once, with the last lines delivered if possible."""

    def __init__(self, on_line: LineCallback, exited: asyncio.Future[int]) -> None:
        self._on_line = on_line
        self._exited = exited
        self._pending = {1: b"", 2: b""}
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, rest = (self._pending[fd] + data).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            lines.append(rest)
            rest = b""
        self._pending[fd] = rest
        for line in lines:
            self._emit(fd, line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        rest, self._pending[fd] = self._pending.get(fd, b""), b""
        self._emit(fd, rest)

    def process_exited(self) -> None:
        asyncio.get_running_loop().call_later(_OUTPUT_GRACE_SECONDS, self._finish)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._finish()

    def _emit(self, fd: int, line: bytes) -> None:
        for start in range(0, len(line), _MAX_LINE_BYTES):
            text = line[start : start + _MAX_LINE_BYTES].decode("utf-8", "replace").rstrip()
            if text:
                self._on_line(_STREAMS[fd], text)

    def _finish(self) -> None:
        assert self._transport is not None
        if not self._exited.done():
            returncode = self._transport.get_returncode()
            self._exited.set_result(-1 if returncode is None else returncode)
            self._transport.close()
