"""A data directory under another path: opencode's sessions follow it.

opencode stores the directory of each session as an absolute path. After a restore to another place, or beside
a copy, that path is the old one: a session would work in what may be another sidecar's workspace. So the
paths are rewritten before opencode starts; where that fails, opencode starts without its sessions.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import structlog

from sidecar.atomic_file import replace_file
from sidecar.opencode.environment import ChildFiles

_PATH_COLUMNS = (
    ("session", "directory"),
    ("session", "path"),  # the same without the slash that it begins with
    ("project", "worktree"),
    ("project_directory", "directory"),
    ("workspace", "directory"),
)
"""Of opencode 1.18.33. `session.permission` has paths inside of JSON."""

_log = structlog.get_logger(__name__)


def follow_move(files: ChildFiles, workspaces_dir: Path) -> None:
    """Rewrite what opencode stored if the data directory has another path than at the last start.

    Blocks; opencode must not run. Raises OSError.
    """
    record = files.root / "location.json"
    here = {"workspaces": str(workspaces_dir.resolve()), "opencode": str(files.root.resolve())}
    before = _read(record)
    if before == here:
        return
    if before is not None:
        moves = [(before[name], here[name]) for name in here if name in before]
        for database in (files.xdg("data") / "opencode").glob("*.db"):
            _move(database, moves)
    replace_file(record, json.dumps(here).encode())


def _read(record: Path) -> Mapping[str, str] | None:
    try:
        value = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _move(database: Path, moves: list[tuple[str, str]]) -> None:
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            for old, new in moves:
                _rewrite(connection, old, new)
    except sqlite3.Error as error:
        for part in database.parent.glob(f"{database.name}*"):
            part.rename(part.with_name(f"{part.name}.before-move"))
        _log.error("opencode's sessions could not follow the data directory", error=str(error))
    else:
        _log.warning("opencode's sessions follow the data directory", moves=moves)


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _PATH_COLUMNS:
        for before, after in ((old, new), (old.lstrip("/"), new.lstrip("/"))):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # our names
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )
    connection.execute(
        "UPDATE session SET permission = replace(permission, ?, ?)",
        (json.dumps(old)[1:-1], json.dumps(new)[1:-1]),
    )
