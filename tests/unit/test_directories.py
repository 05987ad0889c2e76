"""Directories of an agent: removed and measured whatever it does to them, before or meanwhile.

Root is bound by modes here, as the image's user is. Where an agent swaps something between two system
calls, the test does it between the same two.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.managed.workspaces.archive_file import Bounds, pack
from sidecar.managed.workspaces.directories import remove_directory
from sidecar.managed.workspaces.disk_use import disk_use

_HEADER = struct.pack("Ii", 0x20080522, 0)
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@pytest.fixture(autouse=True)
def _bound_by_modes() -> Iterator[None]:
    """Root gives up for a while what lets it read and write everything."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = ctypes.create_string_buffer(_HEADER), ctypes.create_string_buffer(24)
    assert libc.capget(header, before) == 0
    sets = list(struct.unpack("6I", before.raw))
    sets[0] &= ~_OVERRIDES
    assert libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *sets))) == 0
    yield
    assert libc.capset(header, before) == 0


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """An agent's directory. What a failed test leaves of it pytest cannot always remove."""
    made = tmp_path / "workspace"
    made.mkdir()
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of somebody else, with a file in it."""
    made = tmp_path / "outside"
    made.mkdir(mode=0o700)
    (made / "file").write_bytes(b"x" * 1_000_000)
    return made


def make_deep(directory: Path, levels: int) -> None:
    """Make a chain of directories with a file at its end, deeper than any path can say."""
    folder = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=folder)
        inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    file = os.open("large", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.posix_fallocate(file, 0, 3_000_000)
    os.close(file)
    os.close(folder)


def swap_before_entering(
    monkeypatch: pytest.MonkeyPatch, name: str, swap: Callable[[], None]
) -> list[str]:
    """Call `swap` once, after an entry of that name was found and before it is opened.

    Returns a list that is filled when it was called.
    """
    called: list[str] = []

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            if not isinstance(path, int) and Path(path).name == name and not called:
                called.append(name)
                swap()
            return real(path, *arguments, **named)

        return call

    for function in ("open", "scandir", "listdir"):
        monkeypatch.setattr(os, function, hooked(getattr(os, function)))
    return called


def replace_by_link(path: Path, target: Path) -> Callable[[], None]:
    """Return what moves a directory away and puts a link in its place."""

    def swap() -> None:
        path.rename(path.with_name("moved away"))
        path.symlink_to(target)

    return swap


def test_a_directory_that_becomes_a_link_is_not_measured(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leads to is not the session's."""
    (workspace / "swapped").mkdir()
    swap = replace_by_link(workspace / "swapped", outside)
    called = swap_before_entering(monkeypatch, "swapped", swap)
    use = disk_use([workspace])
    assert called
    assert use.size_bytes < 100_000
    assert use.is_whole, "moving directories while they are measured is normal work"


def test_a_directory_above_that_becomes_a_link_is_not_measured(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when the link is further up in the path."""
    (workspace / "above" / "swapped").mkdir(parents=True)
    (outside / "swapped").mkdir()
    (outside / "swapped" / "file").write_bytes(b"x" * 1_000_000)
    swap = replace_by_link(workspace / "above", outside)
    called = swap_before_entering(monkeypatch, "swapped", swap)
    assert disk_use([workspace]).size_bytes < 100_000
    assert called


def test_an_unreadable_directory_that_becomes_a_link_opens_nothing(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made readable by its path: whatever a link in its place led to could be read by every user."""
    hidden = workspace / "hidden"
    hidden.mkdir(mode=0)
    real_open, real_scandir = os.open, os.scandir
    swaps: list[str] = []

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            try:
                return real(path, *arguments, **named)
            except PermissionError:
                if not swaps:
                    swaps.append(str(path))
                    hidden.rmdir()
                    hidden.symlink_to(outside)
                raise

        return call

    monkeypatch.setattr(os, "open", hooked(real_open))
    monkeypatch.setattr(os, "scandir", hooked(real_scandir))
    use = disk_use([workspace])
    assert swaps
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    assert use.size_bytes < 100_000


def test_what_is_moved_while_it_is_measured_leads_nowhere(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way back up from a directory that is elsewhere by now: not to that place, but to the one before."""
    deep = workspace / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (workspace / "a" / "after").mkdir()
    (workspace / "last").write_bytes(b"x")
    real = os.open
    entered: list[str] = []

    def moving(path: Any, *arguments: Any, **named: Any) -> int:
        if path == ".." and entered[-1] == "c" and deep.is_dir():
            deep.rename(outside / "c")
        entered.append(str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", moving)
    use = disk_use([workspace])
    assert (outside / "c").is_dir()
    assert use.size_bytes < 100_000
    assert use.entries == 5
    assert use.is_whole


def test_a_tree_deeper_than_any_path_is_measured_and_removed(workspace: Path) -> None:
    """With three descriptors and no recursion, however many levels an agent makes."""
    make_deep(workspace, 3000)
    use = disk_use([workspace])
    assert use.is_whole
    assert use.entries == 3001
    assert use.size_bytes >= 3_000_000
    assert remove_directory(workspace)
    assert not workspace.exists()


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o300, 0o400, 0o500])
def test_what_its_owner_locked_is_removed(workspace: Path, mode: int) -> None:
    """A deleted session leaves no files behind, whatever modes it gave to its directories."""
    for folder in ("a", "a/b", "a/b/c"):
        (workspace / folder).mkdir()
        (workspace / folder / "file").write_text("kept?")
    for folder in ("a/b/c", "a/b", "a", "."):
        (workspace / folder).chmod(mode)
    assert remove_directory(workspace)
    assert not workspace.exists()


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o300, 0o400, 0o600])
def test_what_its_owner_locked_is_measured_and_packed(
    workspace: Path, tmp_path: Path, mode: int
) -> None:
    """An agent hides nothing in a directory that may not be listed or entered, and loses no files by one."""
    (workspace / "a" / "b").mkdir(parents=True)
    (workspace / "a" / "b" / "large").write_bytes(os.urandom(1_000_000))
    for folder in ("a/b", "a", "."):
        (workspace / folder).chmod(mode)
    use = disk_use([workspace])
    assert use.is_whole
    assert use.size_bytes >= 1_000_000
    for folder in ("a/b", "a", "."):
        (workspace / folder).chmod(mode)
    packed = pack(workspace, tmp_path / "archive", Bounds(10_000_000, 100, time.monotonic() + 600))
    assert packed.entries == 3
    assert packed.content_bytes == 1_000_000
    assert packed.left_out == 0


def test_a_file_that_becomes_a_link_is_left_out(
    workspace: Path, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others are packed: an agent that is at work does not cost its session the archive."""
    (workspace / "swapped").write_text("the agent's")
    (workspace / "other").write_text("the agent's")

    def swap() -> None:
        (workspace / "swapped").unlink()
        (workspace / "swapped").symlink_to(outside / "file")

    called = swap_before_entering(monkeypatch, "swapped", swap)
    packed = pack(workspace, tmp_path / "archive", Bounds(10_000_000, 100, time.monotonic() + 600))
    assert called
    assert packed.content_bytes == len("the agent's")
    assert packed.left_out == 1


def test_links_are_removed_and_not_followed(workspace: Path, outside: Path) -> None:
    """Inside the directory, and in its own place."""
    (workspace / "link").symlink_to(outside)
    (workspace / "file link").symlink_to(outside / "file")
    os.mkfifo(workspace / "pipe")
    assert remove_directory(workspace)
    workspace.symlink_to(outside)
    assert remove_directory(workspace)
    assert not workspace.is_symlink()
    assert (outside / "file").exists()


def test_a_directory_that_becomes_a_link_is_not_emptied(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's process that is still at work does not have others' files deleted."""
    (workspace / "swapped").mkdir()
    swap = replace_by_link(workspace / "swapped", outside)
    called = swap_before_entering(monkeypatch, "swapped", swap)
    assert remove_directory(workspace)
    assert called
    assert (outside / "file").exists()


def test_a_directory_that_cannot_be_removed_is_reported(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount in it, for example."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(16, "busy")

    (workspace / "mounted").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", refuse)
        assert not remove_directory(workspace)
    assert remove_directory(workspace)


def test_what_is_not_there_is_removed(workspace: Path) -> None:
    """Removing twice is no error."""
    with contextlib.suppress(FileNotFoundError):
        workspace.rmdir()
    assert remove_directory(workspace)
