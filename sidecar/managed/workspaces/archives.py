"""Sessions' files that travel between pods: an archive of the directory after each turn that changed it.

A turn's end is published when its files are kept, so that a pod's death costs the files of a turn that it
cut, and no others. An archive is an object of its own; the row in `archives` says which one counts. It
changes in one commit, with the owner's epoch, when the object is complete: a crash in between leaves the
archive before. The row outlives its session, until the objects are deleted, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from sidecar.cluster.ownership import OwnershipLostError, SharedOwnership
from sidecar.managed.common import timestamps
from sidecar.managed.turns.failures import Failure, TurnFailedError
from sidecar.managed.workspaces import archive_file
from sidecar.managed.workspaces.archive_file import ArchiveError, Bounds, Packed
from sidecar.managed.workspaces.directories import remove_directory
from sidecar.managed.workspaces.disk_use import free_space
from sidecar.store.interface import Connection, ObjectError, Store, StoreError

if TYPE_CHECKING:
    from sidecar.config import ArchiveSettings, StorageSettings
    from sidecar.store.objects import Objects

_AT_ONCE = 2
"""Directories that are packed or unpacked at a time: each takes a core and the disk."""
_SWEEP_SECONDS = 60.0
_SWEPT_AT_ONCE = 100
_EXPECTED = (ArchiveError, ObjectError, OSError, TimeoutError)
"""What may go wrong with files and buckets."""
_NOTHING = Packed("", 0, 0, 0, 0)
_BEHIND = (
    "The pod with this session's files was lost. The working directory is as it was at the end of an earlier "
    "turn: what was changed there since, and whatever ran, is gone. Look at the files before relying on them."
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Archive:
    """The archive that counts, and whether tools ran since it was made."""

    name: str | None
    digest: str | None
    content_bytes: int
    is_behind: bool


class SessionArchives:
    """Keeps and restores the directories of sessions. Its numbers are for the metrics."""

    def __init__(
        self,
        *,
        database: Store,
        ownership: SharedOwnership,
        objects: Objects,
        settings: ArchiveSettings,
        storage: StorageSettings,
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._objects = objects
        self._settings = settings
        self._workspaces_dir = storage.workspaces_dir.resolve()
        self._scratch_dir = storage.data_dir / "archives"
        self._min_free_bytes = storage.min_free_bytes
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._fingerprints: dict[str, str] = {}
        """Of the files that are archived, by session."""
        self._behind: set[str] = set()
        self._recorded: set[str] = set()
        """Sessions that have a row."""
        self._sweeping = asyncio.Event()
        self.saved = self.saved_bytes = self.restored = self.failed = self.left_out = 0

    def prepare(self) -> None:
        """Make a directory for what is under way, empty it. Blocks. Raises OSError."""
        remove_directory(self._scratch_dir)
        self._scratch_dir.mkdir(mode=0o700, parents=True)
        for rest in self._workspaces_dir.glob(".restoring-*"):
            remove_directory(rest)

    # -- before a turn ------------------------------------------------------------------------------

    async def restore(self, session_id: str) -> bool:
        """See that the session's files are here; return whether the directory is another than it was.

        Raises TurnFailedError when they cannot be had, and StoreError.
        """
        directory = self._workspaces_dir / session_id
        is_moved = not self._ownership.has_files(session_id)
        if not is_moved and session_id in self._fingerprints:
            return False
        has_directory = await asyncio.to_thread(directory.is_dir)
        if not is_moved and has_directory:
            return False
        self._ownership.note_files_missing(session_id)
        archive = await self._database.read(lambda connection: _select(connection, session_id))
        try:
            async with asyncio.timeout(self._settings.timeout_seconds), self._places:
                await self._replace(directory, archive)
        except _EXPECTED as error:
            self.failed += 1
            _log.warning("files not restored", session=session_id, error=_text(error))
            raise TurnFailedError(
                Failure(
                    "unknown_error",
                    f"the session's files cannot be restored: {_text(error)}; send the message again later",
                )
            ) from error
        if is_moved:
            await self._database.write(
                lambda connection: self._ownership.set_home(connection, session_id)
            )
        self._ownership.note_files_here(session_id)
        if archive.is_behind:
            self._behind.add(session_id)
        if archive.name is not None:
            self.restored += 1
            _log.info("files restored", session=session_id, is_behind=archive.is_behind)
        return has_directory or archive.name is not None

    def preamble(self, session_id: str) -> str:
        """Return what the model has to know of the restored files; empty when they are complete."""
        return _BEHIND if session_id in self._behind else ""

    async def _replace(self, directory: Path, archive: _Archive) -> None:
        if archive.name is None:
            # A copy from when the session was here before would not be what it is now.
            await asyncio.to_thread(remove_directory, directory)
            self._fingerprints[directory.name] = ""
            return
        free = await asyncio.to_thread(free_space, self._workspaces_dir)
        if free.free_bytes - archive.content_bytes < self._min_free_bytes:
            raise ArchiveError("the disk of this pod has no room for them")
        token = secrets.token_hex(8)
        file = self._scratch_dir / f"{token}.tar.zst"
        draft = self._workspaces_dir / f".restoring-{token}"
        bounds = self._bounds()
        try:
            digest = await self._objects.get(
                archive.name, file, max_bytes=2 * self._settings.max_bytes
            )
            if digest != archive.digest:
                raise ArchiveError(f"{archive.name} is not what was stored there")
            await asyncio.to_thread(archive_file.unpack, file, draft, bounds)
            await asyncio.to_thread(_exchange, draft, directory)
            fingerprint = await asyncio.to_thread(archive_file.fingerprint, directory, bounds)
            self._fingerprints[directory.name] = fingerprint
        finally:
            await asyncio.to_thread(_remove, file, draft)

    # -- after a turn -------------------------------------------------------------------------------

    async def save(self, session_id: str, last_seq: int) -> None:
        """Keep the session's files as they are; `last_seq` is the number of its last event.

        What goes wrong with the files is logged and counted, and the next turn tries again. Raises
        StoreError, OwnershipLostError among them.
        """
        if not self._ownership.has_files(session_id):
            return  # they could not be restored: what is kept is newer than what is here
        directory = self._workspaces_dir / session_id
        try:
            async with asyncio.timeout(self._settings.timeout_seconds), self._places:
                await self._keep(directory, last_seq)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001, RUF100  # whatever it is, the turn has to end
            self.failed += 1
            _log.warning(
                "files not archived", session=session_id, error=_text(error), exc_info=_bug(error)
            )
        else:
            self._behind.discard(session_id)

    async def _keep(self, directory: Path, last_seq: int) -> None:
        session_id, bounds = directory.name, self._bounds()
        fingerprint = await asyncio.to_thread(archive_file.fingerprint, directory, bounds)
        if self._fingerprints.get(session_id) == fingerprint:
            await self._database.write(self._publish(session_id, last_seq))
            return
        if not fingerprint:
            before = await self._database.write(
                self._publish(session_id, last_seq, packed=_NOTHING)
            )
        else:
            before = await self._keep_changed(directory, last_seq, bounds)
        self._fingerprints[session_id] = fingerprint
        if before is not None:
            await self._delete([before])

    async def _keep_changed(self, directory: Path, last_seq: int, bounds: Bounds) -> str | None:
        session_id = directory.name
        if session_id not in self._recorded:
            # Before the object: by its row it can be found that the bucket has something of a session.
            await self._database.write(self._publish(session_id, None))
            self._recorded.add(session_id)
        file = self._scratch_dir / f"{secrets.token_hex(8)}.tar.zst"
        name = f"{session_id}/{file.name}"
        try:
            packed = await asyncio.to_thread(archive_file.pack, directory, file, bounds)
            await self._objects.put(name, file)
            before = await self._database.write(self._publish(session_id, last_seq, name, packed))
        except BaseException:
            await self._delete([name])
            raise
        finally:
            await asyncio.to_thread(file.unlink, missing_ok=True)
        self.saved += 1
        self.saved_bytes += packed.size_bytes
        self.left_out += packed.left_out
        if packed.left_out:
            _log.warning("files left out of an archive", session=session_id, files=packed.left_out)
        return before

    def _publish(
        self,
        session_id: str,
        last_seq: int | None,
        name: str | None = None,
        packed: Packed | None = None,
    ) -> Callable[[Connection], str | None]:
        """Return the job that writes the row, with the owner's epoch; its result is the archive before."""
        condition, parameters = self._ownership.guard(session_id)
        owned = f"SELECT 1 FROM sessions WHERE id = ?{condition} FOR UPDATE"  # noqa: S608  # a constant

        def write(connection: Connection) -> str | None:
            if connection.execute(owned, (session_id, *parameters)).fetchone() is None:
                raise OwnershipLostError(f"session {session_id} is another pod's")
            query = "SELECT name FROM archives WHERE session_id = ?"
            before = connection.execute(query, (session_id,)).fetchone()
            if before is None:
                connection.execute("INSERT INTO archives (session_id) VALUES (?)", (session_id,))
            if last_seq is not None:
                query = "UPDATE archives SET covers_seq = ? WHERE session_id = ?"
                connection.execute(query, (last_seq, session_id))
            if packed is not None:
                connection.execute(
                    "UPDATE archives SET name = ?, digest = ?, size_bytes = ?, content_bytes = ?, "
                    "made_at = ? WHERE session_id = ?",
                    (
                        name,
                        packed.digest,
                        packed.size_bytes,
                        packed.content_bytes,
                        timestamps.now(),
                        session_id,
                    ),
                )
            return before[0] if before is not None else None

        return write

    def _bounds(self) -> Bounds:
        deadline = time.monotonic() + self._settings.timeout_seconds
        return Bounds(self._settings.max_bytes, self._settings.max_files, deadline)

    def forget(self, session_id: str) -> None:
        """Keep nothing of a session that is another pod's in memory."""
        self._fingerprints.pop(session_id, None)
        self._behind.discard(session_id)
        self._recorded.discard(session_id)

    # -- deletion -----------------------------------------------------------------------------------

    def sweep_soon(self) -> None:
        """A session was deleted: its archives are now."""
        self._sweeping.set()

    async def run(self) -> None:
        """Delete the archives of deleted sessions, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sweeping.wait(), _SWEEP_SECONDS)
            self._sweeping.clear()
            try:
                await self._sweep()
            except (*_EXPECTED, StoreError) as error:
                _log.warning("archives not deleted", error=_text(error))

    async def _sweep(self) -> None:
        query = (
            "SELECT session_id FROM archives WHERE NOT EXISTS "
            "(SELECT 1 FROM sessions WHERE sessions.id = archives.session_id) LIMIT ?"
        )

        def select(connection: Connection) -> list[str]:
            return [row[0] for row in connection.execute(query, (_SWEPT_AT_ONCE,))]

        for session_id in await self._database.read(select):
            await self._objects.delete(await self._objects.names_under(session_id))
            await self._database.write(_Remove(session_id))
            self.forget(session_id)

    async def _delete(self, names: list[str]) -> None:
        """Delete objects that do not count, best effort: those of a deleted session are all deleted."""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await self._objects.delete(names)
        except _EXPECTED as error:
            _log.warning("an old archive was not deleted", error=_text(error))


@dataclass(frozen=True, slots=True)
class _Remove:
    session_id: str

    def __call__(self, connection: Connection) -> None:
        connection.execute("DELETE FROM archives WHERE session_id = ?", (self.session_id,))


def _select(connection: Connection, session_id: str) -> _Archive:
    row = connection.execute(
        "SELECT name, digest, content_bytes, covers_seq FROM archives WHERE session_id = ?",
        (session_id,),
    ).fetchone()
    covered = row["covers_seq"] if row is not None else 0
    later = connection.execute(
        "SELECT 1 FROM events WHERE session_id = ? AND seq > ? AND type = 'agent.tool_use' LIMIT 1",
        (session_id, covered),
    ).fetchone()
    if row is None:
        return _Archive(None, None, 0, later is not None)
    return _Archive(row["name"], row["digest"], row["content_bytes"], later is not None)


def _exchange(draft: Path, directory: Path) -> None:
    """Put a directory in the place of another, which may be there. A crash in between is repaired by
    restoring again."""
    remove_directory(directory)
    draft.rename(directory)


def _remove(file: Path, draft: Path) -> None:
    file.unlink(missing_ok=True)
    remove_directory(draft)


def _bug(error: BaseException) -> BaseException | None:
    return None if isinstance(error, _EXPECTED) else error


def _text(error: BaseException) -> str:
    return str(error) or "it took too long (SIDECAR_ARCHIVE_TIMEOUT_SECONDS)"
