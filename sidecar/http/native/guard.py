"""Managed sessions are read-only for callers of opencode's own API.

A managed session's permissions, events and usage are kept by the sidecar. A write that went around it
would run tools that the log says were asked for, or turns that no list shows. What belongs to a managed
session is recognised by its directory: opencode keeps each session, its sub-agents included, in the
directory in which it was created, and each managed session has one of its own. opencode is therefore asked
for a session's directory once, not at each write.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sidecar.errors import ChildError, ConflictError, PermissionDeniedError
from sidecar.http.native.rules import session_in
from sidecar.ids import is_id
from sidecar.opencode.client import ChildClient

_EVENTS = "send {event} to POST /v1/sessions/{id}/events"
_INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(
        ("message", "prompt_async", "command", "shell", "init", "summarize"),
        _EVENTS.format(event="user.message", id="{id}"),
    ),
    "abort": _EVENTS.format(event="user.interrupt", id="{id}"),
    "permissions": _EVENTS.format(event="user.tool_confirmation", id="{id}"),
    "permission": _EVENTS.format(event="user.tool_confirmation", id="{id}"),
    "PATCH": "use POST /v1/sessions/{id}",
    "DELETE": "use DELETE /v1/sessions/{id}",
}
_INSTEAD_OF_OTHERS = "use /v1/sessions/{id}"
_KEPT_DIRECTORIES = 4096
"""Of sessions, those that were written to last: under 1 MiB. Of any other opencode is asked again."""


class ManagedSessions:
    """Recognises managed sessions and refuses what would change one."""

    def __init__(self, workspaces_dir: Path) -> None:
        self._root = workspaces_dir.resolve()
        self._directories: OrderedDict[str, Path] = OrderedDict()

    async def session_of(self, client: ChildClient, path: str) -> dict[str, Any] | None:
        """Return the session that the path names, as opencode has it now; None without one."""
        session_id, _ = session_in(path)
        return await self._read(client, session_id) if session_id is not None else None

    async def check_write(
        self,
        client: ChildClient,
        method: str,
        path: str,
        *,
        directories: Iterable[Path],
        body: Mapping[str, Any] | None,
    ) -> Path | None:
        """Return the directory of the session that the path names, None without one.

        `directories` are those that the request names. Raises ConflictError when any of it belongs to a
        managed session, PermissionDeniedError for the directory that holds those of all sessions.
        """
        action = path.split("/")[1]
        for directory in directories:
            self._check_directory(directory, method, path, action)
        session_id, of_session = session_in(path)
        parent = body.get("parentID") if body is not None else None
        if isinstance(parent, str) and session_in(f"/session/{parent}")[0] == parent:
            await self._check_session(client, parent, method, path, action)
        if session_id is None:
            return None
        return await self._check_session(client, session_id, method, path, of_session or method)

    async def _check_session(
        self, client: ChildClient, session_id: str, method: str, path: str, action: str
    ) -> Path | None:
        if session_id in self._directories:
            self._directories.move_to_end(session_id)
        elif await self._read(client, session_id) is None:
            return None  # the child's own answer says so
        directory = self._directories[session_id]
        self._check_directory(directory, method, path, action)
        return directory

    async def _read(self, client: ChildClient, session_id: str) -> dict[str, Any] | None:
        try:
            session = await client.get_session(session_id)
        except ChildError as error:
            if error.upstream_status == 404:
                return None
            raise
        self._directories[session_id] = Path(str(session.get("directory", "/")))
        if len(self._directories) > _KEPT_DIRECTORIES:
            self._directories.popitem(last=False)
        return session

    def _check_directory(self, directory: Path, method: str, path: str, action: str) -> None:
        try:
            parts = directory.resolve().relative_to(self._root).parts
        except (ValueError, OSError, RuntimeError):  # not below it; a loop of links
            return
        if not parts:
            raise PermissionDeniedError(
                f"{method} {path}: the sidecar's WORKDIR, which holds the directories of all sessions, is "
                "read-only in opencode's own API; name a directory below it"
            )
        if is_id(owner := parts[0], "sesn"):
            instead = _INSTEAD.get(action, _INSTEAD_OF_OTHERS).format(id=owner)
            raise ConflictError(
                f"{method} {path}: this belongs to the managed session {owner}, which is read-only in "
                f"opencode's own API; {instead}"
            )
