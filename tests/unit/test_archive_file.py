"""A directory as one file: everything comes back, nothing leads out, and bounds hold."""

from __future__ import annotations

import io
import os
import socket
import stat
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar.managed.workspaces.archive_file import (
    ArchiveError,
    Bounds,
    Packed,
    fingerprint,
    pack,
    unpack,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def bounds(
    *, max_bytes: int = 100_000_000, max_entries: int = 10_000, seconds: float = 120
) -> Bounds:
    """Return bounds that most tests do not meet."""
    return Bounds(max_bytes, max_entries, time.monotonic() + seconds)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "session"
    made.mkdir()
    return made


def moved(directory: Path, tmp_path: Path) -> tuple[Path, Packed]:
    """Pack the directory and unpack it elsewhere."""
    number = len(list(tmp_path.iterdir()))
    archive, target = tmp_path / f"{number}.tar.zst", tmp_path / f"target-{number}"
    packed = pack(directory, archive, bounds())
    unpack(archive, target, bounds())
    return target, packed


def test_everything_comes_back(directory: Path, tmp_path: Path) -> None:
    """Content, names in any bytes, modes, times, empty directories, symbolic and hard links."""
    (directory / "empty").mkdir(mode=0o750)
    (directory / "deep" / "er").mkdir(parents=True)
    script = directory / "deep" / "er" / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.utime(script, (1_600_000_000, 1_600_000_000))
    (directory / "größe 🙂.txt").write_bytes(b"\0" * 100_000)
    Path(os.fsdecode(os.fsencode(directory) + b"/bad\xff\xfe")).write_text("bytes")
    (directory / "first").write_text("one inode")
    (directory / "zweite").hardlink_to(directory / "first")
    (directory / "inside").symlink_to("deep/er/run.sh")
    (directory / "python").symlink_to("/usr/bin/python3")
    (directory / "dangling").symlink_to("../nowhere")
    (directory / "to-folder").symlink_to("deep")
    target, packed = moved(directory, tmp_path)
    assert packed.left_out == 0
    names = sorted(os.fsencode(path.relative_to(directory)) for path in directory.rglob("*"))
    assert sorted(os.fsencode(path.relative_to(target)) for path in target.rglob("*")) == names
    found = (target / "deep/er/run.sh").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o755, 1_600_000_000)
    assert stat.S_IMODE((target / "empty").stat().st_mode) == 0o750
    assert (target / "größe 🙂.txt").read_bytes() == b"\0" * 100_000
    assert (target / "first").stat().st_ino == (target / "zweite").stat().st_ino
    for link in ("inside", "python", "dangling", "to-folder"):
        assert (target / link).readlink() == (directory / link).readlink()


def test_what_is_unreadable_is_kept_and_what_is_no_file_is_left_out(
    directory: Path, tmp_path: Path
) -> None:
    """Modes do not hide files; sockets and pipes are counted; set-user-id bits are gone."""
    (directory / "hidden").mkdir()
    (directory / "hidden" / "file").write_text("here")
    (directory / "hidden" / "file").chmod(0)
    (directory / "hidden").chmod(0)
    (directory / "root").write_text("")
    (directory / "root").chmod(0o4755)
    os.mkfifo(directory / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "socket"))
        target, packed = moved(directory, tmp_path)
    assert packed.left_out == 2
    (target / "hidden").chmod(0o700)
    assert (target / "hidden" / "file").read_text() == "here"
    assert stat.S_IMODE((target / "root").stat().st_mode) == 0o755
    assert not (target / "pipe").exists()
    assert not (target / "socket").exists()


def test_too_deep_is_left_out(directory: Path, tmp_path: Path) -> None:
    """A path that no program could open costs its own content only."""
    here = os.open(directory, os.O_RDONLY)
    for _ in range(250):
        os.mkdir("d" * 50, dir_fd=here)
        inner = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (directory / "file").write_text("kept")
    target, packed = moved(directory, tmp_path)
    assert packed.left_out == 1
    assert (target / "file").read_text() == "kept"


def test_a_fingerprint_changes_with_the_files(directory: Path) -> None:
    """Equal while nothing changes; content, a mode, a name and a link each change it; nothing is empty."""
    assert fingerprint(directory, bounds()) == ""
    assert fingerprint(directory / "absent", bounds()) == ""
    file = directory / "file"
    seen = set()
    for change in (
        lambda: file.write_text("one"),
        lambda: file.write_text("two"),
        lambda: file.chmod(0o700),
        lambda: file.rename(directory / "renamed"),
        lambda: (directory / "link").symlink_to("renamed"),
    ):
        change()
        found = fingerprint(directory, bounds())
        assert found == fingerprint(directory, bounds())
        seen.add(found)
    assert len(seen) == 5


def test_a_link_put_in_the_place_of_a_file_leads_nowhere(directory: Path, tmp_path: Path) -> None:
    """While it is packed an agent changes names between files and links to a secret of the sidecar."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("the vault key")
    (directory / "name").mkdir()
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            (directory / "name").rename(directory / "aside")
            (directory / "name").symlink_to(secret)
            (directory / "key").symlink_to(secret / "key")
            (directory / "name").unlink()
            (directory / "key").unlink()
            (directory / "aside").rename(directory / "name")
            (directory / "key").write_text("the agent's")
            (directory / "key").unlink()

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for number in range(200):
            archive = tmp_path / f"{number}.tar.zst"
            pack(directory, archive, bounds())
            with zstd.open(archive, "rb") as stream:
                assert b"the vault key" not in stream.read()
            archive.unlink()
    finally:
        is_over.set()
        swapping.join()


@pytest.mark.parametrize(
    ("bound", "says"),
    [
        ({"max_bytes": 999}, "SIDECAR_ARCHIVE_MAX_BYTES"),
        ({"max_entries": 3}, "SIDECAR_ARCHIVE_MAX_FILES"),
        ({"seconds": -1.0}, "SIDECAR_ARCHIVE_TIMEOUT_SECONDS"),
    ],
)
def test_bounds_hold_in_both_directions(
    directory: Path, tmp_path: Path, bound: dict[str, float], says: str
) -> None:
    """Of size, number and time, and each names its setting."""
    for number in range(4):
        (directory / str(number)).write_bytes(b"x" * 250)
    with pytest.raises(ArchiveError, match=says):
        pack(directory, tmp_path / "refused", bounds(**bound))  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match=says):
        fingerprint(directory, bounds(**bound))  # type: ignore[arg-type]
    pack(directory, tmp_path / "archive", bounds())
    with pytest.raises(ArchiveError, match=says):
        unpack(tmp_path / "archive", tmp_path / "target", bounds(**bound))  # type: ignore[arg-type]


def made_by_hand(file: Path, members: Sequence[tuple[str, bytes, str]]) -> None:
    """Write an archive of (name, tar's type, target of a link)."""
    with zstd.open(file, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, type_, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = type_, link, 0o755
            info.size = 4 if type_ == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"evil"))


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "")],
        [("/out", tarfile.REGTYPE, "")],
        [("a/../../out", tarfile.REGTYPE, "")],
        [("a", tarfile.DIRTYPE, ""), ("a/../../out", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.SYMTYPE, "/etc")],
        [("link", tarfile.SYMTYPE, ".."), ("link", tarfile.DIRTYPE, "")],
        [("twice", tarfile.REGTYPE, ""), ("twice", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [("hard", tarfile.LNKTYPE, "../secret")],
        [("link", tarfile.SYMTYPE, "/etc/passwd"), ("hard", tarfile.LNKTYPE, "link")],
        [("null", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("absent/file", tarfile.REGTYPE, "")],
        [("file", tarfile.REGTYPE, ""), ("file/below", tarfile.REGTYPE, "")],
        [(".", tarfile.REGTYPE, "")],
        [("a//b", tarfile.REGTYPE, "")],
    ],
)
def test_an_archive_that_was_not_made_here_is_refused(
    tmp_path: Path, members: Sequence[tuple[str, bytes, str]]
) -> None:
    """Names that lead out, anything through a link, entries twice, devices: nothing is written outside."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "secret").write_text("unharmed")
    archive = tmp_path / "archive"
    made_by_hand(archive, members)
    with pytest.raises(ArchiveError, match="cannot be"):
        unpack(archive, place / "target", bounds())
    assert sorted(path.name for path in place.iterdir()) == ["secret", "target"]
    assert (place / "secret").read_text() == "unharmed"
    assert (place / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_damaged_archive_is_refused(directory: Path, tmp_path: Path, kept: float) -> None:
    """Empty, cut at any place, or no archive at all."""
    (directory / "file").write_bytes(os.urandom(200_000))
    archive = tmp_path / "archive"
    pack(directory, archive, bounds())
    whole = archive.read_bytes()
    end = int(len(whole) * kept) if isinstance(kept, float) else kept
    archive.write_bytes(whole[:end] if kept else b"no archive")
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "target", bounds())
