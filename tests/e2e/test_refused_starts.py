"""Starts that cannot be: one sentence, exit code 2, no traceback, and nothing left running."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sidecar_process import all_gone, run


def in_the_way(path: Path) -> None:
    """Put a directory where a file is expected."""
    path.mkdir(parents=True)


def no_text(path: Path) -> None:
    """Put bytes where text is expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xfe\x00")


def pipe(path: Path) -> None:
    """Put a named pipe, which keeps a reader waiting until there is a writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def emptied(path: Path) -> None:
    """Put an empty database beside a key of before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (path.parent / "secret.key").write_text("A" * 43 + "=")


async def refused(data_dir: Path, *says: str, **environment: str) -> None:
    """Start, and check how that ends."""
    code, output = await run("serve", DATA_DIR=str(data_dir), PORT="0", **environment)
    assert code == 2, output
    assert "Traceback" not in output
    sentences = [line for line in output.splitlines() if line.startswith("opencode-sidecar: ")]
    assert len(sentences) == 1, output
    for words in says:
        assert words in sentences[0]
    await all_gone(data_dir)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("lock", in_the_way),
        ("sidecar.db", in_the_way),
        ("secret.key", in_the_way),
        ("secret.key", no_text),
        ("opencode/opencode.json", in_the_way),
        ("sidecar.db", emptied),
        *((name, pipe) for name in ("lock", "sidecar.db", "secret.key", "opencode/opencode.json")),
    ],
)
async def test_something_is_in_the_way(tmp_path: Path, name: str, spoil: object) -> None:
    """A directory where a file is to be, bytes where text is: the sentence names the path."""
    assert callable(spoil)
    spoil(tmp_path / "data" / name)
    await refused(tmp_path / "data", str(tmp_path / "data" / name))


@pytest.mark.parametrize("binary", ["gone", "a-directory"])
async def test_there_is_no_opencode(tmp_path: Path, binary: str) -> None:
    """Said at once, by the name of the setting; not after some failed starts."""
    in_the_way(tmp_path / "a-directory")
    path = str(tmp_path / binary)
    await refused(tmp_path / "data", "SIDECAR_CHILD_BINARY", path, SIDECAR_CHILD_BINARY=path)
