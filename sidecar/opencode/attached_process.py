"""The process behind an address: which one it is, its end, signals. Mechanism only.

For an attached opencode, which we do not start. Where containers share their process namespace and their
network, as in a pod with `shareProcessNamespace`, the kernel says which process has the other end of our
connection; nothing that a process claims of itself is believed. Elsewhere the process is unknown, and what
depends on it has to be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil
from yarl import URL

from sidecar.aiokit import Callbacks
from sidecar.errors import ChildError
from sidecar.processes import orphans

_CONNECT_TIMEOUT_SECONDS = 5.0
_ATTEMPTS = 5
_ATTEMPT_PAUSE_SECONDS = 0.05
"""Between a fork and its exec a new process holds all connections of the old one, so one look may name
another process than the next."""
_REQUEST = b"GET /global/health HTTP/1.1\r\nHost: %s\r\n\r\n"
"""Any answer will do, a refusal too: what answers has accepted the connection."""
_INIT = 1
_RULES_VARIABLE = "SIDECAR_SHELL_RULES"
"""Set by `processes/confine.c`."""
_TERM_GRACE_SECONDS = 5.0

Address = tuple[str, int]


class AttachedProcess:
    """A process that we did not start. Create with `find`; close once.

    Held by a descriptor, so that its id can never come to mean another process.
    """

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        self._on_end = Callbacks[[]]("end of the attached process")
        asyncio.get_running_loop().add_reader(descriptor, self._note_end)

    @classmethod
    async def find(cls, url: str, *, marker: str) -> AttachedProcess:
        """Return the process that answers at `url`. Raises ChildError that says why it cannot be known."""
        if sys.platform != "linux":
            raise ChildError("only Linux says which process a connection belongs to")
        address = URL(url)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(address.host, address.port)
                try:
                    writer.write(_REQUEST % (address.host or "").encode())
                    await reader.readuntil(b"\r\n")
                    return await cls._find(writer, marker)
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            raise ChildError(f"it does not answer: {error}") from error

    @classmethod
    async def _find(cls, writer: asyncio.StreamWriter, marker: str) -> AttachedProcess:
        ours = _plain(writer.get_extra_info("sockname"))
        theirs = _plain(writer.get_extra_info("peername"))
        for _ in range(_ATTEMPTS):
            pid = await asyncio.to_thread(_owner, theirs, ours)
            with contextlib.ExitStack() as undo:
                found = cls(pid, _descriptor(pid))
                undo.callback(found.close)
                await asyncio.sleep(_ATTEMPT_PAUSE_SECONDS)
                if await asyncio.to_thread(_owner, theirs, ours) == pid and not found.is_gone:
                    await asyncio.to_thread(_check, pid, marker)
                    undo.pop_all()
                    return found
        raise ChildError("several processes hold its connections")

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    @property
    def is_confined(self) -> bool:
        """Whether it was started by the launcher, which gives its shells their rules."""
        return orphans.has_variable(self.pid, _RULES_VARIABLE)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop when it ends."""
        self._on_end.add(callback)

    async def wait(self, seconds: float) -> bool:
        """Wait for its end, no longer than that; return whether it came."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
        return self.is_gone

    async def end(self) -> None:
        """SIGTERM, and only then SIGKILL. Raises ChildError when that does not end it."""
        self._signal(signal.SIGTERM)
        if await self.wait(_TERM_GRACE_SECONDS):
            return
        self._signal(signal.SIGKILL)
        if not await self.wait(_TERM_GRACE_SECONDS):  # the kernel shields a namespace's process 1
            raise ChildError(f"process {self.pid} cannot be ended from here")

    def close(self) -> None:
        """Let go of it."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)  # it stays readable from now on
        self._ended.set()
        self._on_end()

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            pass
        except OSError as error:
            raise ChildError(f"process {self.pid} cannot be signalled: {error.strerror}") from error


def _descriptor(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise ChildError(f"process {pid} cannot be watched: {error.strerror}") from error


def _plain(name: tuple[Any, ...]) -> Address:
    """Return host and port; an IPv4 address in IPv6's clothes as what it is."""
    return str(name[0]).removeprefix("::ffff:"), int(name[1])


def _owner(local: Address, remote: Address) -> int:
    """Return the process whose end of a connection that is. Blocks; raises ChildError."""
    try:
        connections = psutil.net_connections("tcp")
    except (OSError, psutil.Error) as error:
        raise ChildError(f"connections cannot be listed: {error}") from error
    for item in connections:
        if not (item.laddr and item.raddr):
            continue
        if (_plain(item.laddr), _plain(item.raddr)) == (local, remote):
            if item.pid is None:
                raise ChildError("the containers share no process namespace, or their users differ")
            return int(item.pid)
    raise ChildError("the containers share no network")


def _check(pid: int, marker: str) -> None:
    """Raise ChildError unless the process has our environment and was started as we would. Blocks."""
    if not orphans.is_marked(pid, marker):
        raise ChildError(
            f"process {pid} does not have the environment that `opencode-sidecar child-env` prints"
        )
    # What an agent left behind has our environment too, and may listen where a dead opencode did. But
    # process 1 adopted it, while what an engine starts in a shared namespace has no ancestor there.
    if not _is_below_init(os.getpid()) and _is_below_init(pid):
        raise ChildError(f"process {pid} was not started by the platform")


def _is_below_init(pid: int) -> bool:
    try:
        return any(parent.pid == _INIT for parent in psutil.Process(pid).parents())
    except psutil.Error as error:
        raise ChildError(f"process {pid} cannot be looked at: {error}") from error
