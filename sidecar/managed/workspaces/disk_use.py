"""How much of the disk a session's directories take, whatever its agent does to hide it. Blocks."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

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
    made unreadable is made readable. One whose path is longer than the system allows (which takes an effort:
    4096 bytes) cannot be read, and the result is not whole.
    """
    size = entries = 0
    is_whole = True
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(directory) for directory in directories]
    while pending:
        folder = pending.pop()
        try:
            with _scan(folder) as scan:
                for entry in scan:
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                            if (found.st_dev, found.st_ino) in seen:
                                continue
                            seen.add((found.st_dev, found.st_ino))
                        size += max(found.st_blocks * _BLOCK_BYTES, _ENTRY_BYTES)
                        entries += 1
                        if stat.S_ISDIR(found.st_mode):
                            pending.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it has just been removed
        except OSError:
            is_whole = False
        if entries >= _MAX_ENTRIES:
            return DiskUse(size, entries, is_whole=False)
    return DiskUse(size, entries, is_whole)


def free_space(directory: Path) -> FreeSpace:
    """Return the free space of the file system that holds the directory. Raises OSError."""
    found = os.statvfs(directory)
    return FreeSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _scan(folder: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except PermissionError:
        # Only its owner, who is us, gets rights: a link put in its place meanwhile gains nothing.
        path = Path(folder)
        path.chmod(stat.S_IMODE(path.lstat().st_mode) | stat.S_IRWXU)
        return os.scandir(folder)
