"""Files that a native prompt names: opencode reads them outside of the walls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import PermissionDeniedError
from sidecar.http.native.attachments import check_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a repository, beside it a secret, and in the repository links to both."""
    root = tmp_path / "work"
    (root / "repository" / "sub").mkdir(parents=True)
    (tmp_path / "secret.key").write_text("secret")
    (root / "repository" / "own.txt").write_text("own")
    (root / "repository" / "out").symlink_to(tmp_path / "secret.key")
    (root / "repository" / "in").symlink_to(root / "repository" / "own.txt")
    return root


def named(arguments: str) -> dict[str, Any]:
    return {"command": "init", "arguments": arguments}


@pytest.mark.parametrize(
    "document",
    [
        named("read @../../../secret.key"),
        named("read @../../secret.key"),
        named("read @out"),
        named("`@out`"),
        named("@own.txt @/etc/passwd"),
        named("@proc/self/environ"),
        named("@~/key"),
        {"parts": [{"type": "file", "url": "file:///etc/passwd"}]},
        {"parts": [{"type": "file", "url": "file:/proc/self/environ"}]},
    ],
)
def test_what_lies_elsewhere_is_refused(root: Path, document: dict[str, Any]) -> None:
    """However it is written: from the repository, from the root of the file system, through a link."""
    with pytest.raises(PermissionDeniedError, match="only files below the sidecar's WORKDIR"):
        check_files(document, root, root / "repository" / "sub")


@pytest.mark.parametrize(
    "arguments", ["@own.txt", "@in", "@sub", "@not-there", "mail me@example.org", "@../own.txt", ""]
)
def test_what_lies_inside_is_not(root: Path, arguments: str) -> None:
    """Nor is what is no file at all: people and packages are written with an `@`, too."""
    check_files(named(arguments), root, root / "repository" / "sub")
    url = f"file://{root / 'repository' / 'own.txt'}"
    check_files({"parts": [{"type": "file", "url": url}]}, root, root / "repository")
