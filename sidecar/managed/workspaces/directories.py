"""Directories of an agent, who may change them while we are at work there: opened, walked and removed.

A path is looked up anew by each system call, and an agent's process can put a link in the place of any part
of it meanwhile. So everything here works relative to open directories and follows no link: what is read,
changed or removed is below the directory that was given. The number of descriptors does not grow with the
depth, which an agent chooses. Everything blocks.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from pathlib import Path

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER_FLAGS = READ_FLAGS | os.O_DIRECTORY
REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL})
"""What system calls say of an entry that was removed since it was found, or is of another kind by now."""
_TO_LOOK_INSIDE = stat.S_IRUSR | stat.S_IXUSR
_PASSES = 3
"""How often a directory is emptied whose owner goes on writing to it."""


def open_inside(folder: int | None, leaf: str | Path, flags: int = FOLDER_FLAGS) -> int:
    """Open an entry of an open directory (None: any path), also one that its owner, who is us, has locked.

    Raises OSError: FileNotFoundError, NotADirectoryError, or ELOOP where it is a link.
    """
    try:
        opened = os.open(leaf, flags, dir_fd=folder)
    except PermissionError:
        itself = os.open(leaf, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            # By its descriptor, so that no other file can be put in its place before this.
            Path(f"/proc/self/fd/{itself}").chmod(stat.S_IRWXU)
        finally:
            os.close(itself)
        return os.open(leaf, flags, dir_fd=folder)
    mode = os.fstat(opened).st_mode
    if stat.S_ISDIR(mode) and mode & _TO_LOOK_INSIDE != _TO_LOOK_INSIDE:
        with contextlib.suppress(PermissionError):  # it is another user's
            os.fchmod(opened, stat.S_IMODE(mode) | stat.S_IRWXU)
    return opened


def remove_directory(directory: Path) -> bool:
    """Remove a directory and all that is in it; return whether nothing is left there.

    Unlike `shutil.rmtree`, which gives up at a directory that may not be read and holds a descriptor and a
    frame of the stack for each level. A link at `directory` itself is removed, not followed.
    """
    for _ in range(_PASSES + 1):  # the last finds nothing
        try:
            _remove(directory)
        except FileNotFoundError:
            return True
        except OSError:  # something was put there meanwhile, or cannot be removed
            continue
    return False


def _remove(directory: Path) -> None:
    if directory.is_symlink():
        directory.unlink()
        return
    root = open_inside(None, directory)
    try:
        _empty(root)
    finally:
        os.close(root)
    directory.rmdir()


def _empty(root: int) -> None:
    """Remove what is in a directory. Directories further down are first moved up into it."""
    # An agent cannot have taken these.
    names = (f".{secrets.token_hex(8)}" for _ in itertools.count())
    os.fchmod(root, stat.S_IRWXU)
    pending = _remove_files(root)
    while pending:
        name = pending.pop()
        # Not there any more, or not to be removed: the caller looks.
        with contextlib.suppress(OSError):
            folder = open_inside(root, name)
            try:
                os.fchmod(folder, stat.S_IRWXU)
                for inner, moved in zip(_remove_files(folder), names, strict=False):
                    with contextlib.suppress(OSError):
                        _move_up(folder, inner, root, moved)
                        pending.append(moved)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=root)


def _move_up(folder: int, inner: str, root: int, name: str) -> None:
    try:
        os.rename(inner, name, src_dir_fd=folder, dst_dir_fd=root)
    except PermissionError:  # a directory that moves has to be writable itself
        opened = open_inside(folder, inner)
        try:
            os.fchmod(opened, stat.S_IRWXU)
        finally:
            os.close(opened)
        os.rename(inner, name, src_dir_fd=folder, dst_dir_fd=root)


def _remove_files(folder: int) -> list[str]:
    """Remove all that is no directory; return the names of the directories."""
    inner = []
    with os.scandir(folder) as scan:
        for entry in scan:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.name)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.name, dir_fd=folder)
    return inner


class Walk:
    """Visits every directory below an open one, with three descriptors; `close` it.

    `here` is the open directory that is visited. `enter` and `leave` move it. What is moved elsewhere
    meanwhile is left out.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._above: list[tuple[str, tuple[int, int]]] = []
        """Name, device and inode of each directory between the root and `here`, which is the last."""
        self.here = os.dup(root)

    def enter(self, leaf: str) -> None:
        """Go into a directory. Raises OSError, and stays."""
        inner = open_inside(self.here, leaf)
        os.close(self.here)
        self.here = inner
        self._above.append((leaf, _identity(inner)))

    def leave(self) -> int:
        """Go back to the directory above; return the number of levels below the root.

        It is fewer than before by more than one where a directory in between was moved elsewhere.
        """
        self._above.pop()
        expected = self._above[-1][1] if self._above else _identity(self._root)
        try:
            above = os.open("..", FOLDER_FLAGS, dir_fd=self.here)
        except OSError:
            above = os.dup(self.here)
        os.close(self.here)
        self.here = above
        if _identity(above) != expected:
            self._descend()
        return len(self._above)

    def _descend(self) -> None:
        """Go from the root as far as the way is what it was."""
        os.close(self.here)
        self.here = os.dup(self._root)
        way, self._above = self._above, []
        for leaf, identity in way:
            try:
                inner = open_inside(self.here, leaf)
            except OSError:
                return
            if _identity(inner) != identity:
                os.close(inner)
                return
            os.close(self.here)
            self.here = inner
            self._above.append((leaf, identity))

    def close(self) -> None:
        """Close the directory that is visited."""
        os.close(self.here)


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino
