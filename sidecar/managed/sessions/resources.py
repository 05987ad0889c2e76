"""The resources of a live session: listed, read, given another token, removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.errors import InvalidRequestError, NotFoundError
from sidecar.managed.common import timestamps
from sidecar.managed.sessions.actor import SessionActor
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.representation import shown_resource
from sidecar.managed.sessions.table import save_body
from sidecar.managed.turns.state import SessionRecord
from sidecar.managed.workspaces.repositories import Repositories
from sidecar.store.interface import Connection


class Resources:
    """Changes go through the session's actor: its row holds the resources as they are answered."""

    def __init__(
        self,
        *,
        repositories: Repositories,
        engine: SessionEngine,
    ) -> None:
        self._repositories = repositories
        self._engine = engine

    async def list(self, session_id: str) -> list[dict[str, Any]]:
        """Return all, in the order of their creation. Raises NotFoundError."""
        record = await self._engine.record(session_id)
        return [shown_resource(item) for item in record.body["resources"]]

    async def get(self, session_id: str, resource_id: str) -> dict[str, Any]:
        """Return one. Raises NotFoundError."""
        return shown_resource(_find(await self._engine.record(session_id), resource_id))

    async def set_token(self, session_id: str, resource_id: str, token: str) -> dict[str, Any]:
        """Replace the token; a clone that failed for the old one is tried again at the next turn."""
        async with self._engine.live.holding(session_id) as actor:
            current = _find_changeable(actor.record, resource_id)
            updated = {**current, "updated_at": timestamps.now()}
            encrypted = self._repositories.encrypt(token, resource_id)

            def write(connection: Connection) -> None:
                connection.note_erasure()
                connection.execute(
                    "UPDATE session_resources SET secret = ? WHERE id = ?", (encrypted, resource_id)
                )

            await _store(actor, {resource_id: updated}, write)
            return shown_resource(updated)

    async def delete(self, session_id: str, resource_id: str) -> None:
        """Forget the resource and its token. The files stay: they may hold the agent's work."""
        async with self._engine.live.holding(session_id) as actor:
            _find_changeable(actor.record, resource_id)

            def write(connection: Connection) -> None:
                connection.note_erasure()
                connection.execute("DELETE FROM session_resources WHERE id = ?", (resource_id,))

            await _store(actor, {resource_id: None}, write)


def _find(record: SessionRecord, resource_id: str) -> dict[str, Any]:
    found: dict[str, Any] | None = next(
        (item for item in record.body["resources"] if item["id"] == resource_id), None
    )
    if found is None:
        raise NotFoundError(f"resource {resource_id} does not exist in session {record.id}")
    return found


def _find_changeable(record: SessionRecord, resource_id: str) -> dict[str, Any]:
    found = _find(record, resource_id)
    if record.archived_at is not None:
        raise InvalidRequestError(f"session {record.id} is archived and cannot be changed")
    return found


async def _store(
    actor: SessionActor,
    changes: dict[str, dict[str, Any] | None],
    write: Callable[[Connection], None],
) -> None:
    """Replace or (None) drop resources in the session's row, in one transaction with `write`."""
    record = actor.record
    kept = [changes.get(item["id"], item) for item in record.body["resources"]]
    body = {**record.body, "resources": [item for item in kept if item is not None]}
    record.body = body

    def save(connection: Connection) -> None:
        save_body(connection, record)
        write(connection)

    await actor.commit([], also=save)
