"""When agents, environments and vaults were last used by a session, for those that age out unused."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.store.interface import Connection


def note_uses(connection: Connection, resource_ids: Iterable[str], used_at: str) -> None:
    """Note a use at that RFC 3339 time; an older one than is known changes nothing."""
    connection.executemany(
        "INSERT INTO resource_uses (resource_id, used_at) VALUES (?, ?) "
        "ON CONFLICT (resource_id) DO UPDATE SET used_at = excluded.used_at "
        "WHERE excluded.used_at > resource_uses.used_at",
        [(resource_id, used_at) for resource_id in resource_ids],
    )


def forget_uses(connection: Connection, before: str) -> None:
    """Delete what is too old to keep anything."""
    connection.execute("DELETE FROM resource_uses WHERE used_at < ?", (before,))
