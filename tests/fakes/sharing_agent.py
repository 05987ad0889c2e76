"""A program with secrets wherever the kernel lets processes share: `sharing_agent.py <folder> <secret>`.

Each place gets `<secret> in <place>`. `<folder>/planted` lists as JSON where that worked and what is needed
to get there; then the program stays, creates files whose names say the secret, and notes a signal in
`<folder>/signalled`. It ends with its folder, or after ten minutes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
ADD_KEY, KEYCTL, USERFAULTFD = {"x86_64": (248, 250, 323), "aarch64": (217, 219, 282)}[
    os.uname().machine
]
KEYRINGS = {"session keyring": -3, "user keyring": -4}
PR_SET_NAME = 15
SETVAL = 16


def main(folder: Path, secret: str) -> None:
    """Plant, then stay."""
    planted: dict[str, int | str] = {"pid": os.getpid()}

    def text(place: str) -> bytes:
        return f"{secret} in {place}".encode()

    segment = LIBC.shmget(0, 4096, 0o600)
    if segment >= 0:
        address = LIBC.shmat(segment, None, 0)
        ctypes.memmove(address, text("segment") + b"\0", len(text("segment")) + 1)
        planted["segment"] = segment
    queue = LIBC.msgget(0, 0o600)
    if queue >= 0 and LIBC.msgsnd(queue, struct.pack("l", 1) + text("queue"), 100, 0) == 0:
        planted["queue"] = queue
    semaphore = LIBC.semget(0, 1, 0o600)
    if semaphore >= 0 and LIBC.semctl(semaphore, 0, SETVAL, 7) == 0:
        planted["semaphore"] = semaphore
    name = f"/of-{os.getpid()}"
    attributes = struct.pack("8l", 0, 4, 200, 0, 0, 0, 0, 0)
    posix = LIBC.mq_open(name.encode(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, attributes)
    if posix >= 0 and LIBC.mq_send(posix, text("posix queue"), len(text("posix queue")), 0) == 0:
        planted["posix queue"] = name
    for place, ring in KEYRINGS.items():
        key = LIBC.syscall(ADD_KEY, b"user", name.encode(), text(place), len(text(place)), ring)
        if key >= 0:
            planted[place] = key
    shared = Path(f"/dev/shm{name}")
    try:
        shared.write_bytes(text("shared file"))
        shared.chmod(0o600)
        planted["shared file"] = str(shared)
    except OSError:
        pass
    LIBC.prctl(PR_SET_NAME, f"of-{secret[-12:]}".encode())
    LIBC.syscall(USERFAULTFD, 1)  # left open: a program that gets it can read our memory
    listener = socket.create_server(("127.0.0.1", 0))
    planted["port"] = listener.getsockname()[1]
    service = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # a socket's path is short
    service.bind("service")
    service.listen()
    planted["service"] = str(folder / "service")
    signal.signal(signal.SIGWINCH, lambda *_: (folder / "signalled").touch())
    draft = folder / "draft"
    draft.write_text(json.dumps(planted))
    draft.rename(folder / "planted")
    try:
        stay(folder, text("name").decode())
    finally:
        LIBC.shmctl(segment, 0, None)
        LIBC.msgctl(queue, 0, None)
        LIBC.semctl(semaphore, 0, 0)
        LIBC.mq_unlink(name.encode())
        shared.unlink(missing_ok=True)
        for place, ring in KEYRINGS.items():
            if place in planted:
                LIBC.syscall(KEYCTL, 9, planted[place], ring)  # KEYCTL_UNLINK


def stay(folder: Path, name: str) -> None:
    """Create and delete a file again and again."""
    ends = time.monotonic() + 600
    while (folder / "planted").exists() and time.monotonic() < ends:
        (folder / name).touch()
        (folder / name).unlink(missing_ok=True)
        threading.Event().wait(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
