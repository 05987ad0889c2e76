"""One sidecar per data directory: a second one would sweep the first one's processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_NAME = "lock"


class DirectoryInUseError(RuntimeError):
    """Another process holds the lock; `pid` is what it wrote into the file, empty when unreadable."""

    def __init__(self, pid: str) -> None:
        super().__init__(f"locked by {pid}")
        self.pid = pid


class DirectoryLock:
    """An advisory lock on a directory. The kernel drops it with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock at once. Raises DirectoryInUseError, OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DirectoryInUseError(pid) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; not holding it is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
