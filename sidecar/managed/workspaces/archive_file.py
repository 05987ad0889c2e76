"""A directory as one file: tar, compressed with zstd. Everything here blocks.

The directory is an agent's, who may change it while it is read. So each entry is opened relative to the open
directory above it and never through a link: what is packed is in the directory, whatever is put in its place
meanwhile. Unpacking trusts no archive, although we made it: every entry has to be below a directory that the
same archive made, once, so no name leads out and nothing is written through a link.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from sidecar.managed.workspaces.directories import READ_FLAGS, REPLACED, open_inside

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL = 3
_MAX_DEPTH = 200
_MAX_NAME_BYTES = 3000
"""Deeper or longer (Linux opens paths of up to 4095 bytes) is left out."""
_MODE = 0o777
_NOT_THERE = REPLACED | {errno.EACCES, errno.EPERM}
"""What is said of an entry that an agent removed, replaced or locked."""


class ArchiveError(Exception):
    """The directory cannot be packed, or the archive cannot be unpacked."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where packing and unpacking end. `deadline` is monotonic seconds."""

    max_bytes: int
    max_entries: int
    deadline: float

    def check(self, size: int, entries: int) -> None:
        """Raise ArchiveError above a bound."""
        if size > self.max_bytes:
            raise ArchiveError(
                f"the files are larger than {self.max_bytes:,} bytes (SIDECAR_ARCHIVE_MAX_BYTES)"
            )
        if entries > self.max_entries:
            raise ArchiveError(
                f"there are more than {self.max_entries:,} files (SIDECAR_ARCHIVE_MAX_FILES)"
            )
        self.check_time()

    def check_time(self) -> None:
        """Raise ArchiveError after the deadline."""
        if time.monotonic() > self.deadline:
            raise ArchiveError("it took too long (SIDECAR_ARCHIVE_TIMEOUT_SECONDS)")


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed. `size_bytes` is the archive's, `content_bytes` the files'."""

    digest: str
    """SHA-256 of the archive, in hexadecimal."""
    size_bytes: int
    content_bytes: int
    entries: int
    left_out: int
    """Sockets, devices, and what could not be read or is too deep."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in the directory; `folder` is the open directory that has it as `leaf`."""

    name: str
    found: os.stat_result
    folder: int
    leaf: str
    is_cut: bool
    """Whether it is a directory whose content is left out, since it is too deep."""


def fingerprint(directory: Path, bounds: Bounds) -> str:
    """Return a digest of names, sizes, modes and times; equal ones mean that nothing was changed.

    A directory without entries, or none, has the empty one. Raises ArchiveError.
    """
    digest = hashlib.blake2b(digest_size=16)
    entries = size = 0
    for entry in _entries(directory, bounds):
        found = entry.found
        entries += 1
        size += found.st_size if stat.S_ISREG(found.st_mode) else 0
        bounds.check(size, entries)
        facts = (found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(os.fsencode(entry.name) + repr(facts).encode())
    return digest.hexdigest() if entries else ""


def pack(directory: Path, target: Path, bounds: Bounds) -> Packed:
    """Write the directory's content to the new file `target`. Raises ArchiveError and OSError.

    Owners are not kept: the user that unpacks it becomes the owner. Nor are set-user-id bits and extended
    attributes.
    """
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        hashing = _Hashing(file)
        with (
            zstd.ZstdFile(hashing, "w", level=_LEVEL) as stream,
            tarfile.open(
                fileobj=cast("BinaryIO", stream), mode="w|", format=tarfile.PAX_FORMAT
            ) as tar,
        ):
            packing = _Packing(tar, bounds)
            for entry in _entries(directory, bounds):
                packing.add(entry)
            packing.add_links()
    return Packed(
        hashing.digest.hexdigest(),
        hashing.size,
        packing.content_bytes,
        packing.entries,
        packing.left_out,
    )


class _Hashing(io.RawIOBase):
    """Writes to a file and takes its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.digest.update(view)
        self.size += view.nbytes
        return view.nbytes


class _Packing:
    """Adds entries to an archive: links last, since nothing may come after them."""

    def __init__(self, tar: tarfile.TarFile, bounds: Bounds) -> None:
        self._tar = tar
        self._bounds = bounds
        self._links: list[tarfile.TarInfo] = []
        self._names: dict[tuple[int, int], str] = {}
        self.content_bytes = self.entries = self.left_out = 0

    def add(self, entry: _Entry) -> None:
        self.entries += 1
        self.left_out += entry.is_cut
        self._bounds.check(self.content_bytes, self.entries)
        info = tarfile.TarInfo(entry.name)
        info.mode = stat.S_IMODE(entry.found.st_mode) & _MODE
        info.mtime = entry.found.st_mtime
        if stat.S_ISDIR(entry.found.st_mode):
            info.type = tarfile.DIRTYPE
            self._tar.addfile(info)
        elif stat.S_ISLNK(entry.found.st_mode):
            self._add_link(entry, info)
        elif stat.S_ISREG(entry.found.st_mode):
            self._add_file(entry, info)
        else:
            self.left_out += 1

    def _add_link(self, entry: _Entry, info: tarfile.TarInfo) -> None:
        info.type = tarfile.SYMTYPE
        try:
            info.linkname = os.readlink(entry.leaf, dir_fd=entry.folder)
        except OSError as error:
            self._leave_out(error)
        else:
            self._links.append(info)

    def _leave_out(self, error: OSError) -> None:
        """Count what cannot be packed. Raises what is not about that entry, such as too many open files."""
        if error.errno not in _NOT_THERE:
            raise error
        self.left_out += 1

    def _add_file(self, entry: _Entry, info: tarfile.TarInfo) -> None:
        try:
            opened = open_inside(entry.folder, entry.leaf, READ_FLAGS)
        except OSError as error:
            self._leave_out(error)
            return
        with os.fdopen(opened, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                self.left_out += 1
                return
            key = (found.st_dev, found.st_ino)
            if found.st_nlink > 1 and key in self._names:
                info.type, info.linkname = tarfile.LNKTYPE, self._names[key]
                self._tar.addfile(info)
                return
            self._names[key] = entry.name
            info.size = found.st_size
            self.content_bytes += found.st_size
            self._bounds.check(self.content_bytes, self.entries)
            self._tar.addfile(info, cast("IO[bytes]", _Exactly(file, self._bounds)))

    def add_links(self) -> None:
        for info in self._links:
            self._tar.addfile(info)


class _Exactly:
    """Reads a file that may become shorter meanwhile: what is missing is zeros."""

    def __init__(self, file: IO[bytes], bounds: Bounds) -> None:
        self._file = file
        self._bounds = bounds

    def read(self, size: int) -> bytes:
        self._bounds.check_time()
        return self._file.read(size).ljust(size, b"\0")


def _entries(directory: Path, bounds: Bounds) -> Iterator[_Entry]:
    try:
        root = open_inside(None, directory)
    except FileNotFoundError:
        return
    try:
        yield from _below(root, "", bounds, 0)
    finally:
        os.close(root)


def _below(folder: int, prefix: str, bounds: Bounds, depth: int) -> Iterator[_Entry]:
    leaves = []
    with os.scandir(folder) as scan:
        for item in scan:
            leaves.append(item.name)
            bounds.check(0, len(leaves))
    for leaf in sorted(leaves):
        name = prefix + leaf
        try:
            found = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue  # it has just been removed
        is_folder = stat.S_ISDIR(found.st_mode)
        is_too_deep = depth >= _MAX_DEPTH or len(os.fsencode(name)) > _MAX_NAME_BYTES
        yield _Entry(name, found, folder, leaf, is_cut=is_folder and is_too_deep)
        if not is_folder or is_too_deep:
            continue
        try:
            inner = open_inside(folder, leaf)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            continue
        try:
            yield from _below(inner, f"{name}/", bounds, depth + 1)
        finally:
            os.close(inner)


def unpack(archive: Path, target: Path, bounds: Bounds) -> None:
    """Make the new directory `target` from an archive.

    Raises ArchiveError, also for an archive that `pack` does not make, and OSError; then `target` is to be
    removed.
    """
    target.mkdir()
    try:
        with (
            zstd.open(archive, "rb") as stream,
            tarfile.open(fileobj=cast("BinaryIO", stream), mode="r|") as tar,
        ):
            unpacking = _Unpacking(tar, target, bounds)
            for member in tar:
                unpacking.take(member)
            unpacking.finish()
    except (tarfile.TarError, zstd.ZstdError, EOFError, UnicodeError) as error:
        raise ArchiveError(f"the archive is damaged: {error}") from error


@dataclass(slots=True)
class _Unpacking:
    tar: tarfile.TarFile
    target: Path
    bounds: Bounds
    folders: dict[str, tarfile.TarInfo | None] = field(default_factory=lambda: {"": None})
    files: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    size: int = 0

    def take(self, member: tarfile.TarInfo) -> None:
        name = member.name
        self.size += member.size
        known = len(self.folders) + len(self.files) + len(self.links)
        self.bounds.check(self.size, known)
        if not self._is_new_name(name):
            raise ArchiveError(f"the archive has an entry that cannot be: {name[:200]!r}")
        if member.isdir():
            self.folders[name] = member
        elif member.isreg() or (member.islnk() and member.linkname in self.files):
            self.files.add(name)
        elif member.issym():
            # Not by the filter, which refuses absolute targets, and every virtual environment has some.
            self.links.add(name)
            (self.target / name).symlink_to(member.linkname)
            return
        else:
            raise ArchiveError(f"the archive has an entry of a kind that cannot be: {name[:200]!r}")
        self.tar.extract(member, self.target, filter="data")

    def _is_new_name(self, name: str) -> bool:
        parent, _, leaf = name.rpartition("/")
        is_plain = leaf not in {"", ".", ".."} and name == (f"{parent}/{leaf}" if parent else leaf)
        is_new = name not in self.folders and name not in self.files and name not in self.links
        return is_plain and is_new and parent in self.folders

    def finish(self) -> None:
        """Give the directories their modes and times, the deepest first: some may not be written to."""
        for name, member in reversed(self.folders.items()):
            if member is not None:
                path = self.target / name
                os.utime(path, (member.mtime, member.mtime))
                path.chmod(member.mode & ~(stat.S_IWGRP | stat.S_IWOTH) & _MODE)
