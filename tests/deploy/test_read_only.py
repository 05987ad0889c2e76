"""A data directory on a read-only file system. Mounting needs root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.test_refused_starts import refused


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Mount a read-only file system there."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


async def test_the_data_directory_is_read_only(tmp_path: Path) -> None:
    """Exit code 2; the sentence says which file could not be written."""
    with read_only(tmp_path / "data"):
        await refused(tmp_path / "data", str(tmp_path / "data"), "Read-only file system")


async def test_the_directory_of_the_workspaces_is_read_only(tmp_path: Path) -> None:
    """Not found out by the first session: the sentence names the setting and the directory."""
    with read_only(tmp_path / "work"):
        work = str(tmp_path / "work")
        await refused(
            tmp_path / "data", f"WORKDIR: this user (uid 0) cannot write in {work}", WORKDIR=work
        )
