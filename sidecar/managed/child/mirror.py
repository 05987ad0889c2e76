"""opencode's own history, kept in the store, so that another pod's opencode can go on with a session.

opencode reports each change of its sessions in `sync` events: durable copies, numbered per session. They are
collected here and stored in the commit that stores the same news for clients; what comes after a turn's end
is stored soon after. A pod that takes a session over makes its opencode's copy from them (`/sync/replay`),
also where there is one: that may have a tail that was never stored, and the numbers would not fit any more.
What cannot be replayed is given to the model as a transcript.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from sidecar.cluster.ownership import OwnershipLostError, SharedOwnership
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.ids import is_id
from sidecar.managed.turns.state import SessionRecord
from sidecar.opencode.client import ChildClient
from sidecar.store.interface import Connection, Store, StoreError
from sidecar.wire.opencode_events import SyncEvent

_FLUSH_SECONDS = 1.0
_MAX_PENDING = 20_000
"""Events of all sessions that wait for a commit. More are dropped: that session's mirror then has a gap."""
_REPLAYED_AT_ONCE = 500
_DELETED = "session.deleted"
_TRANSCRIPT_CHARS = 200_000
_HEADING = (
    "This conversation was moved to another machine, and the assistant's own memory of it was lost. What "
    "follows is its transcript, without tool calls; go on from there.\n\n"
)

_log = structlog.get_logger(__name__)


class Mirror:
    """Collects sync events by session, gives them to the commits of that session, and replays them."""

    def __init__(
        self, *, database: Store, ownership: SharedOwnership, workspaces_dir: Path
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._workspaces_dir = str(workspaces_dir)
        self._pending: dict[str, list[SyncEvent]] = {}
        self._count = 0
        self.stored = 0
        self.dropped = 0
        self.replays = 0
        self.transcripts = 0
        """Sessions that could not be replayed and went on from a transcript."""

    def note(self, directory: str, event: SyncEvent) -> None:
        """Take an event of that directory in. Must be cheap: the pump waits."""
        parent, _, session_id = directory.rpartition("/")
        if parent != self._workspaces_dir or not is_id(session_id, "sesn"):
            return
        if event.type.startswith(_DELETED):
            return  # ours, before a replay
        if self._count >= _MAX_PENDING:
            self.dropped += 1
            return
        self._pending.setdefault(session_id, []).append(event)
        self._count += 1

    def take(self, session_id: str) -> Sequence[SyncEvent]:
        """Return what waits for a commit of the session; `give_back` it when that fails."""
        taken = self._pending.pop(session_id, [])
        self._count -= len(taken)
        return taken

    def give_back(self, session_id: str, events: Sequence[SyncEvent]) -> None:
        """Keep these for the next commit."""
        if events:
            self._pending[session_id] = [*events, *self._pending.get(session_id, ())]
            self._count += len(events)

    def insert(self, connection: Connection, session_id: str, events: Sequence[SyncEvent]) -> None:
        """Store events, in the transaction of a commit of the session."""
        if events:
            connection.executemany(
                "INSERT INTO child_events (session_id, aggregate, seq, id, type, data) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (session_id, e.aggregate, e.seq, e.id, e.type, json.dumps(e.data))
                    for e in events
                ],
            )
            self.stored += len(events)

    async def run(self) -> None:
        """Store what no commit took, until cancelled: titles and sums that follow a turn's end."""
        waited: set[str] = set()
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            # Not what came just now: the turn's own commits take that, and would have to wait for this one.
            await self.flush(waited.intersection(self._pending))
            waited = set(self._pending)

    async def flush(self, session_ids: Iterable[str] | None = None) -> None:
        """Store what waits, of these sessions or of all, if they are ours."""
        for session_id in list(self._pending) if session_ids is None else session_ids:
            events = self.take(session_id)
            try:
                condition, parameters = self._ownership.guard(session_id)
                await self._database.write(_Flush(self, session_id, events, condition, parameters))
            except OwnershipLostError:
                continue
            except StoreError as error:
                self.give_back(session_id, events)
                _log.warning("history not mirrored", session=session_id, error=str(error))

    async def restore(self, client: ChildClient, record: SessionRecord, directory: Path) -> str:
        """See that opencode has the conversation of a session that was taken over.

        Returns a transcript for the model, empty when opencode has the history. With a transcript the
        session needs a new opencode session. Raises ChildUnavailableError and StoreError.
        """
        if record.child_session_id is None or not self._ownership.is_new_here(record.id):
            return ""
        events = await self._read(record.id)
        words = ""
        try:
            if events:
                await _replay(client, directory, record.child_session_id, events)
                self.replays += 1
            else:
                await client.get_session(record.child_session_id)
        except ChildUnavailableError:
            raise
        except ChildError as error:
            _log.warning("history cannot be replayed", session=record.id, error=error.message)
            words = await self._transcript(record)
            self.transcripts += 1
            await self._database.write(lambda connection: _forget(connection, record.id))
        self._ownership.note_settled(record.id)
        return words

    async def _read(self, session_id: str) -> list[SyncEvent]:
        def select(connection: Connection) -> list[SyncEvent]:
            rows = connection.execute(
                "SELECT id, type, seq, aggregate, data FROM child_events WHERE session_id = ? "
                "ORDER BY aggregate, seq",
                (session_id,),
            )
            return [
                SyncEvent(
                    row["id"], row["type"], row["seq"], row["aggregate"], json.loads(row["data"])
                )
                for row in rows
            ]

        return await self._database.read(select)

    async def _transcript(self, record: SessionRecord) -> str:
        def select(connection: Connection) -> list[dict[str, Any]]:
            rows = connection.execute(
                "SELECT body FROM events WHERE session_id = ? "
                "AND type IN ('user.message', 'agent.message') ORDER BY seq DESC",
                (record.id,),
            )
            found, chars = [], 0
            for row in rows:
                chars += len(row["body"])
                if chars > _TRANSCRIPT_CHARS:
                    break
                found.append(json.loads(row["body"]))
            return found[::-1]

        opening = record.turn.user_event_id if record.turn is not None else None
        return transcript(await self._database.read(select), opening)


class _Flush:
    """The job that stores what waited; nothing when the session was deleted or is another's."""

    def __init__(
        self,
        mirror: Mirror,
        session_id: str,
        events: Sequence[SyncEvent],
        condition: str,
        parameters: tuple[int, ...],
    ) -> None:
        self._mirror = mirror
        self._session_id = session_id
        self._events = events
        self._query = f"SELECT 1 FROM sessions WHERE id = ?{condition} FOR UPDATE"  # noqa: S608  # a constant
        self._parameters = (session_id, *parameters)

    def __call__(self, connection: Connection) -> None:
        if connection.execute(self._query, self._parameters).fetchone() is not None:
            self._mirror.insert(connection, self._session_id, self._events)


async def _replay(
    client: ChildClient, directory: Path, root: str, events: Iterable[SyncEvent]
) -> None:
    """Make a session and its sub-agents' sessions anew in opencode, from stored events. Raises ChildError."""
    by_aggregate: dict[str, list[SyncEvent]] = {root: []}
    for event in events:
        by_aggregate.setdefault(event.aggregate, []).append(event)
    if not by_aggregate[root]:
        raise ChildError("the session itself is not among its events")
    for aggregate, own in by_aggregate.items():
        try:
            await client.delete_session(aggregate)
        except ChildError as error:
            if error.upstream_status != 404:
                raise
        for start in range(0, len(own), _REPLAYED_AT_ONCE):
            await client.replay(
                directory,
                [
                    _placed(event, directory).to_wire()
                    for event in own[start : start + _REPLAYED_AT_ONCE]
                ],
            )


def _placed(event: SyncEvent, directory: Path) -> SyncEvent:
    """Return the event with the session in the directory that it has here: pods may differ in `WORKDIR`."""
    info = event.data.get("info")
    if not isinstance(info, dict) or info.get("directory") in {None, str(directory)}:
        return event
    return replace(event, data={**event.data, "info": {**info, "directory": str(directory)}})


def transcript(events: Sequence[Mapping[str, Any]], opening_id: str | None) -> str:
    """Return the messages before the opening one as text, with a heading; empty when there are none."""
    lines = []
    for event in events:
        if event["id"] == opening_id:
            break
        who = "User" if event["type"] == "user.message" else "Assistant"
        text = "\n".join(
            block["text"] if block.get("type") == "text" else f"[{block.get('type')}]"
            for block in event["content"]
        )
        lines.append(f"{who}: {text}")
    return _HEADING + "\n\n".join(lines) if lines else ""


def _forget(connection: Connection, session_id: str) -> None:
    connection.execute("DELETE FROM child_events WHERE session_id = ?", (session_id,))
