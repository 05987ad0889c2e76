"""How much of the disk a session's directories take, whatever its agent does to hide it. Blocks."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.managed.workspaces.directories import REPLACED, Walk, open_inside

_BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2)), whatever the file system's own."""
_ENTRY_BYTES = 512
"""What an entry counts at least: an empty file takes an inode, of which a disk has a number, too."""
_MAX_ENTRIES = 5_000_000
"""Where looking ends: about 20 s."""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What directories take, in bytes; at least that when they could not be read to the end."""

    size_bytes: int
    entries: int
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What a file system has left for ordinary users, and its size, in bytes."""

    free_bytes: int
    total_bytes: int


def disk_use(directories: Iterable[Path]) -> DiskUse:
    """Measure the directories, links not followed, a file with several names once.

    Counted are blocks on the disk: a sparse file takes what was written to it. A directory that its owner
    made unreadable is made readable. Where that does not help, the result is not whole.
    """
    measuring = _Measuring()
    for directory in directories:
        try:
            root = open_inside(None, directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            measuring.is_whole = False
            continue
        try:
            measuring.measure(root)
        finally:
            os.close(root)
    return DiskUse(measuring.size, measuring.entries, measuring.is_whole)


@dataclass(slots=True)
class _Measuring:
    size: int = 0
    entries: int = 0
    is_whole: bool = True
    seen: set[tuple[int, int]] = field(default_factory=set)
    """Files with several names."""

    def measure(self, root: int) -> None:
        walk = Walk(root)
        try:
            levels = [self._scan(walk.here)]
            while levels:
                if self.entries >= _MAX_ENTRIES:
                    self.is_whole = False
                    return
                if levels[-1]:
                    self._enter(walk, levels)
                elif len(levels) == 1:
                    return
                else:
                    del levels[walk.leave() + 1 :]
        finally:
            walk.close()

    def _enter(self, walk: Walk, levels: list[list[str]]) -> None:
        try:
            walk.enter(levels[-1].pop())
        except OSError as error:
            if error.errno not in REPLACED:
                self.is_whole = False
            return
        levels.append(self._scan(walk.here))

    def _scan(self, folder: int) -> list[str]:
        """Count what is in a directory; return the names of the directories in it."""
        inner = []
        try:
            with os.scandir(folder) as scan:
                for entry in scan:
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if self._count(found):
                            inner.append(entry.name)
        except OSError:
            self.is_whole = False
        return inner

    def _count(self, found: os.stat_result) -> bool:
        """Count an entry; return whether it is a directory."""
        is_directory = stat.S_ISDIR(found.st_mode)
        if found.st_nlink > 1 and not is_directory:
            if (found.st_dev, found.st_ino) in self.seen:
                return False
            self.seen.add((found.st_dev, found.st_ino))
        self.size += max(found.st_blocks * _BLOCK_BYTES, _ENTRY_BYTES)
        self.entries += 1
        return is_directory


def free_space(directory: Path) -> FreeSpace:
    """Return the free space of the file system that holds the directory. Raises OSError."""
    found = os.statvfs(directory)
    return FreeSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
