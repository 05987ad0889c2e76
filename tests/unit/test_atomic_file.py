"""A file that is replaced has the old content or the new one, and nothing is left beside it."""

import os
from pathlib import Path

import pytest

from sidecar.atomic_file import BY_UMASK, PRIVATE, replace_file


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_file_is_made_and_replaced(tmp_path: Path, is_synced: bool) -> None:
    """The content is the last one; nothing else is in the directory."""
    file = tmp_path / "file.json"
    for content in (b"first, and longer", b"second"):
        replace_file(file, content, is_synced=is_synced)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_changes_nothing(tmp_path: Path) -> None:
    """The error names the file, and what was written beside it is gone."""
    target = tmp_path / "a-directory"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="a-directory") as caught:
        replace_file(target, b"content")
    assert caught.value.filename2 == str(target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_mode_is_private_unless_asked_for(tmp_path: Path) -> None:
    """Secrets are for their owner only; other files follow the umask."""
    before = os.umask(0o022)
    try:
        replace_file(tmp_path / "private", b"", mode=PRIVATE)
        replace_file(tmp_path / "shared", b"", mode=BY_UMASK)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"private": 0o600, "shared": 0o644}
