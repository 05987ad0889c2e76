"""Which sessions are managed: what opencode is asked for, and what it is not asked for twice."""

from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.errors import ConflictError, PermissionDeniedError
from sidecar.http.native import guard
from sidecar.http.native.guard import ManagedSessions
from sidecar.ids import new_id
from sidecar.opencode.client import ChildClient


class Child:
    """Answers where sessions are, and counts the questions."""

    def __init__(self, **directories: Path) -> None:
        self.directories = directories
        self.asked: list[str] = []

    async def get_session(self, session_id: str) -> dict[str, Any]:
        self.asked.append(session_id)
        return {"id": session_id, "directory": str(self.directories[session_id])}


async def write(managed: ManagedSessions, child: Child, session_id: str) -> Path | None:
    client = cast(ChildClient, child)
    path = f"/session/{session_id}"
    return await managed.check_write(client, "PATCH", path, directories=[], body=None)


async def test_opencode_is_asked_once_for_each_session(tmp_path: Path) -> None:
    """A session stays in its directory: a write costs no second request, and a managed one stays refused."""
    own, theirs = tmp_path / "native", tmp_path / new_id("sesn")
    child, managed = Child(ses_own=own, ses_theirs=theirs), ManagedSessions(tmp_path)
    for _ in range(3):
        assert await write(managed, child, "ses_own") == own
        with pytest.raises(ConflictError, match=theirs.name):
            await write(managed, child, "ses_theirs")
    assert sorted(child.asked) == ["ses_own", "ses_theirs"]


async def test_the_session_written_to_longest_ago_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is bounded."""
    monkeypatch.setattr(guard, "_KEPT_DIRECTORIES", 2)
    native = tmp_path / "native"
    child, managed = Child(ses_1=native, ses_2=native, ses_3=native), ManagedSessions(tmp_path)
    for session_id in ("ses_1", "ses_2", "ses_1", "ses_3", "ses_1", "ses_2"):
        await write(managed, child, session_id)
    assert child.asked == ["ses_1", "ses_2", "ses_3", "ses_2"]


async def test_a_session_in_the_directory_above_all_is_refused(tmp_path: Path) -> None:
    """An earlier version let it be made; a loop of links is none of ours and no failure."""
    (tmp_path / "loop").symlink_to("loop")
    child = Child(ses_root=tmp_path, ses_loop=tmp_path / "loop")
    managed = ManagedSessions(tmp_path)
    with pytest.raises(PermissionDeniedError, match="read-only"):
        await write(managed, child, "ses_root")
    assert await write(managed, child, "ses_loop") == tmp_path / "loop"
