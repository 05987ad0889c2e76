"""What an agent can get from others past all files, by system calls: `kernel_agent.py <task.json>`.

The task has, for each process to look at, what `sharing_agent.py` planted there and its folder. `found`
beside the task becomes a JSON object of what was read, by "place of name"; acts that succeeded have the value
"done".
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
NUMBERS = {
    "x86_64": {"keyctl": 250, "perf": 298, "bpf": 321, "getfd": 438},
    "aarch64": {"keyctl": 219, "perf": 241, "bpf": 280, "getfd": 438},
}[os.uname().machine]
KEYCTL_READ = 11
KEYCTL_LINK = 8
SESSION_KEYRING, USER_KEYRING = -3, -4
GETVAL = 12
IPC_NOWAIT = 0o4000
BPF_MAP_GET_NEXT_ID = 12


class Probe:
    """Tries every way to one process."""

    def __init__(self, name: str, planted: dict[str, Any], folder: str) -> None:
        self.name, self.planted, self.folder = name, planted, folder
        self.pid = int(planted["pid"])
        self.found: dict[str, str] = {}

    def take(self, place: str, attempt: Callable[[], bytes | str | None]) -> None:
        """Note what the attempt returns, if anything."""
        with contextlib.suppress(OSError, ValueError, KeyError, termios.error):
            got = attempt()
            if got is not None:
                text = got.decode(errors="replace") if isinstance(got, bytes) else got
                self.found[f"{place} of {self.name}"] = text[:300]

    def run(self) -> dict[str, str]:
        for place, attempt in {
            "segment": self.segment,
            "queue": self.queue,
            "semaphore": self.semaphore,
            "posix queue": self.posix_queue,
            "session keyring": lambda: self.key("session keyring"),
            "user keyring": lambda: self.key("user keyring"),
            "shared file": lambda: Path(self.planted["shared file"]).read_bytes(),
            "command line": lambda: Path(f"/proc/{self.pid}/cmdline").read_bytes(),
            "process name": lambda: Path(f"/proc/{self.pid}/comm").read_text(),
            "environment": lambda: Path(f"/proc/{self.pid}/environ").read_bytes(),
            "file name": self.watch,
            "port": self.port,
            "service": self.service,
            "terminal": self.terminal,
            "descriptor": self.descriptor,
            "perf event": self.perf,
            "signal": self.signal,
            "signal by a descriptor": self.signal_by_descriptor,
            "limit": self.limit,
            "affinity": lambda: self.done(os.sched_setaffinity, os.sched_getaffinity(self.pid)),
            "priority": lambda: self.done(
                lambda pid, nice: os.setpriority(os.PRIO_PROCESS, pid, nice),
                os.getpriority(os.PRIO_PROCESS, self.pid),
            ),
            "bpf map": self.bpf,
        }.items():
            self.take(place, attempt)
        return self.found

    def done(self, call: Callable[[int, Any], object], value: Any) -> str:
        """Set what is set already."""
        call(self.pid, value)
        return "done"

    def segment(self) -> bytes | None:
        address = LIBC.shmat(self.planted["segment"], None, 0o10000)  # SHM_RDONLY
        return None if address == ctypes.c_void_p(-1).value else ctypes.string_at(address, 300)

    def queue(self) -> bytes | None:
        buffer = ctypes.create_string_buffer(300)
        got = LIBC.msgrcv(self.planted["queue"], buffer, 200, 0, IPC_NOWAIT)
        return buffer.raw if got >= 0 else None

    def semaphore(self) -> str | None:
        value = LIBC.semctl(self.planted["semaphore"], 0, GETVAL)
        return str(value) if value >= 0 else None

    def posix_queue(self) -> bytes | None:
        queue = LIBC.mq_open(self.planted["posix queue"].encode(), os.O_RDONLY | os.O_NONBLOCK)
        buffer = ctypes.create_string_buffer(300)
        got = LIBC.mq_receive(queue, buffer, 300, None) if queue >= 0 else -1
        return buffer.raw if got >= 0 else None

    def key(self, place: str) -> bytes | None:
        """Read a key. One of the user's keyring is ours as soon as that is linked into our session's."""
        LIBC.syscall(NUMBERS["keyctl"], KEYCTL_LINK, USER_KEYRING, SESSION_KEYRING)
        buffer = ctypes.create_string_buffer(300)
        got = LIBC.syscall(NUMBERS["keyctl"], KEYCTL_READ, self.planted[place], buffer, 300)
        return buffer.raw if got >= 0 else None

    def watch(self) -> bytes | None:
        """Be told the names of files that come and go."""
        watcher = LIBC.inotify_init()
        if LIBC.inotify_add_watch(watcher, self.folder.encode(), 0x100) < 0:  # IN_CREATE
            return None
        readable, _, _ = select.select([watcher], [], [], 60)
        return os.read(watcher, 4096) if readable else None

    def port(self) -> str | None:
        wanted = f":{self.planted['port']:04X}"
        return "done" if wanted in Path("/proc/net/tcp").read_text() else None

    def service(self) -> str:
        """Connect to a socket that has a path, as a desktop's D-Bus has."""
        os.chdir(Path(self.planted["service"]).parent)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect("service")
        return "done"

    def terminal(self) -> str:
        """Type at the terminal from which the sidecar was started."""
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(terminal, termios.TIOCGPGRP, struct.pack("i", 0))
        return "done"

    def descriptor(self) -> str | None:
        """Take over an open file, a userfaultfd among them."""
        process = os.pidfd_open(self.pid)
        taken = [LIBC.syscall(NUMBERS["getfd"], process, number, 0) for number in range(16)]
        return "done" if max(taken) >= 0 else None

    def perf(self) -> str | None:
        """Count in another process, user space only."""
        attributes = struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 1 << 5 | 1 << 6).ljust(128, b"\0")
        got = LIBC.syscall(NUMBERS["perf"], attributes, self.pid, -1, -1, 0)
        return "done" if got >= 0 else None

    def signal(self) -> str:
        os.kill(self.pid, signal.SIGWINCH)
        return "done"

    def signal_by_descriptor(self) -> str | None:
        """Have the kernel signal its process when something can be read."""
        reader, writer = os.pipe()
        fcntl.fcntl(reader, fcntl.F_SETOWN, self.pid)
        fcntl.fcntl(reader, 10, signal.SIGWINCH)  # F_SETSIG
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writer, b"x")
        return None  # the process says whether it was

    def limit(self) -> str:
        """Set a limit to what it is: one of CPU time would kill the process."""
        before = resource.prlimit(self.pid, resource.RLIMIT_CPU)
        return self.done(lambda pid, to: resource.prlimit(pid, resource.RLIMIT_CPU, to), before)

    def bpf(self) -> str | None:
        request = struct.pack("III", 0, 0, 0).ljust(128, b"\0")
        got = LIBC.syscall(NUMBERS["bpf"], BPF_MAP_GET_NEXT_ID, request, 128)
        return "done" if got >= 0 else None


def main(task: Path) -> None:
    found = {"own variables": json.dumps(dict(os.environ))}
    for name, one in json.loads(task.read_text()).items():
        found |= Probe(name, one["planted"], one["folder"]).run()
    draft = task.with_name("draft")
    draft.write_text(json.dumps(found))
    draft.rename(task.with_name("found"))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
