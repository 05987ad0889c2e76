"""Managed sessions are read-only for callers of opencode's own API.

A managed session's permissions, events and usage are kept by the sidecar. A write that went around it
would run tools that the log says were asked for, or turns that no list shows. What belongs to a managed
session is recognised by its directory: opencode keeps each session, its sub-agents included, in the
directory in which it was created, and each managed session has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sidecar.errors import ChildError, ConflictError
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


class ManagedSessions:
    """Recognises managed sessions and refuses what would change one."""

    def __init__(self, workspaces_dir: Path) -> None:
        self._root = workspaces_dir.resolve()

    def owner_of(self, directory: Path) -> str | None:
        """Return the managed session (`sesn_...`) whose directory this is, or is below; else None."""
        try:
            first, *_ = directory.resolve().relative_to(self._root).parts
        except (ValueError, OSError, RuntimeError):
            return None
        return first if is_id(first, "sesn") else None

    async def check_write(
        self,
        client: ChildClient,
        method: str,
        path: str,
        *,
        directories: Iterable[Path],
        body: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:
        """Return the session that the path names, as opencode has it, None without one.

        `directories` are those that the request names. Raises ConflictError when any of it belongs to a
        managed session.
        """
        action = path.split("/")[1]
        for directory in directories:
            self._refuse(self.owner_of(directory), method, path, action)
        session_id, of_session = session_in(path)
        session = await _session(client, session_id) if session_id is not None else None
        parent = body.get("parentID") if body is not None else None
        if isinstance(parent, str) and session_in(f"/session/{parent}")[0] == parent:
            self._check_session(await _session(client, parent), method, path, action)
        self._check_session(session, method, path, of_session or method)
        return session

    def _check_session(
        self, session: Mapping[str, Any] | None, method: str, path: str, action: str
    ) -> None:
        if session is not None:
            owner = self.owner_of(Path(str(session.get("directory", "/"))))
            self._refuse(owner, method, path, action)

    def _refuse(self, owner: str | None, method: str, path: str, action: str) -> None:
        if owner is not None:
            instead = _INSTEAD.get(action, _INSTEAD_OF_OTHERS).format(id=owner)
            raise ConflictError(
                f"{method} {path}: this belongs to the managed session {owner}, which is read-only in "
                f"opencode's own API; {instead}"
            )


async def _session(client: ChildClient, session_id: str) -> dict[str, Any] | None:
    try:
        return await client.get_session(session_id)
    except ChildError as error:
        if error.upstream_status == 404:
            return None  # the child's own answer says so
        raise
