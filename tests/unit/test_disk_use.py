"""What directories take on the disk, and what an agent may do so that it looks less."""

import os
from pathlib import Path

import pytest

from sidecar.managed.workspaces.disk_use import disk_use, free_space

MB = 1_000_000


def fill(path: Path, size: int) -> None:
    """Write a file of that size, really on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def test_files_of_all_directories_count(tmp_path: Path) -> None:
    """Deep ones, too; a directory that is not there takes nothing."""
    fill(tmp_path / "workspace/a/b/c", 3 * MB)
    fill(tmp_path / "home/d", 2 * MB)
    use = disk_use([tmp_path / "workspace", tmp_path / "home", tmp_path / "nowhere"])
    assert 5 * MB <= use.size_bytes < 6 * MB
    assert use.entries == 4
    assert use.is_whole


def test_a_file_with_several_names_counts_once(tmp_path: Path) -> None:
    """Worktrees and package stores are made of them."""
    fill(tmp_path / "a", 3 * MB)
    for name in "bcd":
        os.link(tmp_path / "a", tmp_path / name)
    assert disk_use([tmp_path]).size_bytes < 4 * MB


def test_holes_take_nothing_and_links_are_not_followed(tmp_path: Path) -> None:
    """Blocks count, not lengths; what a link leads to is not the session's."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with (inside / "sparse").open("wb") as file:
        file.truncate(1000 * MB)
    fill(tmp_path / "outside/large", 5 * MB)
    (inside / "link").symlink_to(tmp_path / "outside")
    assert disk_use([inside]).size_bytes < MB


def test_empty_files_take_something(tmp_path: Path) -> None:
    """Each takes an inode, of which a disk has a number."""
    for number in range(2000):
        (tmp_path / str(number)).touch()
    assert disk_use([tmp_path]).size_bytes >= 2000 * 512


def test_a_directory_that_is_made_unreadable_is_measured(tmp_path: Path) -> None:
    """An agent can write to what it cannot list, and so could hide what it writes."""
    fill(tmp_path / "hidden/large", 3 * MB)
    (tmp_path / "hidden").chmod(0o300)
    assert disk_use([tmp_path]).size_bytes >= 3 * MB


def test_free_space(tmp_path: Path) -> None:
    """Of the file system that holds the directory."""
    space = free_space(tmp_path)
    assert 0 < space.free_bytes < space.total_bytes
    with pytest.raises(OSError):
        free_space(tmp_path / "nowhere")
