"""Who may change a session: always this process with SQLite, the owner of the moment with PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from sidecar.aiokit import Callbacks
from sidecar.cluster.boots import select_least_loaded, select_others, take_duty
from sidecar.errors import NotFoundError, OwnerUnavailableError, SidecarError
from sidecar.store.interface import Connection, Store, StoreError

_TAKEN_AT_ONCE = 50
"""Unfinished sessions of dead boots that one pod takes per round; the others take some, too."""
_RETRY_AFTER_SECONDS = 2.0
_ALIVE = (
    "EXISTS (SELECT 1 FROM boots WHERE boots.boot_id = sessions.owner_boot "
    "AND boots.expires_at > clock_timestamp())"
)
"""NOT EXISTS, and not a comparison: the sessions of a boot whose row was deleted can be claimed, too."""

_log = structlog.get_logger(__name__)


class OwnershipLostError(StoreError):
    """Another boot owns the session by now. Nothing was stored, and nothing may be published."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The boot that owns a session: where its internal listener is."""

    boot_id: str
    """Empty for one that is asked to become the owner."""
    address: str


class OwnedElsewhereError(SidecarError):
    """The session is another live boot's; between pods only, clients never see it."""

    status = 421

    def __init__(self, session_id: str, owner: Owner) -> None:
        super().__init__(f"session {session_id} is served by another pod")
        self.owner = owner


class Ownership:
    """With SQLite: this process has the file for itself, so every session is its own."""

    is_shared = False
    """Whether other processes may own sessions of the same store."""

    def has_files(self, _session_id: str, /) -> bool:
        """Whether the session's files are in this process's directory."""
        return True

    def owns(self, _session_id: str, /) -> bool:
        """Whether this process is the owner, as far as it knows."""
        return True

    async def acquire(self, session_id: str, /) -> None:
        """Become the owner unless we are.

        Raises OwnedElsewhereError, OwnerUnavailableError for an owner that is gone and whose session
        cannot be taken here, and NotFoundError.
        """

    @contextmanager
    def creating(self, _session_id: str, /) -> Iterator[None]:
        """Own a session from before its row is stored; not when that fails."""
        yield

    def claim_new(self, connection: Connection, session_id: str, /) -> None:
        """Make the row that was just inserted ours, in the same transaction."""

    def guard(self, _session_id: str, /) -> tuple[str, tuple[int, ...]]:
        """Return (an SQL condition, its parameters) that every change of the row must carry.

        Raises OwnershipLostError when we are not the owner.
        """
        return "", ()

    def lose(self, session_id: str, /) -> None:
        """Forget a session that another boot owns; the callbacks hear of it."""

    def on_lost(self, callback: Callable[[str], None], /) -> None:
        """Call `callback` with the id of each session that is lost from now on."""

    async def release(self, session_ids: Sequence[str], /) -> None:
        """Give sessions up so that any other may have them at once. Raises StoreError."""

    def unfinished(self, connection: Connection, /) -> list[str]:
        """Return the ids of sessions with a running turn or queued messages that no live process works on."""
        rows = connection.execute(
            "SELECT id FROM sessions WHERE status IN ('running', 'rescheduling') "
            "UNION SELECT session_id FROM queued_events"
        )
        return [row[0] for row in rows]

    def may_delete(self) -> tuple[str, tuple[str, ...]]:
        """Return (a condition, its parameters) for the sessions that this process may age out."""
        return "", ()

    def takes_duty(self, _connection: Connection, _name: str, _seconds: float, /) -> bool:
        """Whether something that one process of all does is ours to do for the next `seconds`."""
        return True


class SharedOwnership(Ownership):
    """With PostgreSQL: a session is this boot's after a claim, and until another boot's claim.

    `home` is the data directory of this pod; with `is_local` only its own sessions can be claimed, since
    their files are nowhere else. With `is_restored` a session's files come after its claim, and the row names
    this home when they are here.
    """

    is_shared = True

    def __init__(
        self,
        *,
        database: Store,
        boot_id: str,
        home: str,
        is_local: bool,
        is_restored: bool = False,
    ) -> None:
        self._database = database
        self.boot_id = boot_id
        self._home = home
        self._is_local = is_local
        self._is_restored = is_restored
        self._without_files: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._new_here: set[str] = set()
        """Sessions that other boots had before, and whose opencode history was not looked at yet."""
        self._lost = Callbacks[[str]]("loss of a session")
        self.claims = 0
        self.takeovers = 0
        """Claims of sessions that a boot had owned before."""
        self.losses = 0

    @property
    def count(self) -> int:
        """How many sessions are ours."""
        return len(self._epochs)

    def owns(self, session_id: str, /) -> bool:
        """Whether we claimed it, and did not hear of another owner since."""
        return session_id in self._epochs

    async def acquire(self, session_id: str, /) -> None:
        """Claim the session unless it is ours. Raises as the protocol says."""
        if session_id in self._epochs:
            return
        found = await self._database.write(lambda connection: self._claim(connection, session_id))
        if isinstance(found, Owner):
            raise OwnedElsewhereError(session_id, found)
        epoch, had_owner, home = found
        if self._is_restored and home != self._home:
            self._without_files.add(session_id)
        self._epochs[session_id] = epoch
        self._new_here.add(session_id)
        self.claims += 1
        self.takeovers += had_owner
        if had_owner:
            _log.info("session taken over", session=session_id, epoch=epoch)

    def _claim(
        self, connection: Connection, session_id: str
    ) -> tuple[int, bool, str | None] | Owner:
        query = "SELECT owner_boot, home FROM sessions WHERE id = ?"
        before = connection.execute(query, (session_id,)).fetchone()
        if before is None:
            raise NotFoundError(f"session {session_id} does not exist")
        place, parameters = self._place()
        home = before[1] if self._is_restored else self._home
        row = connection.execute(
            "UPDATE sessions SET owner_boot = ?, owner_epoch = owner_epoch + 1, home = ? "  # noqa: S608  # constants
            f"WHERE id = ? AND (owner_boot IS NULL OR owner_boot = ? OR NOT {_ALIVE}){place} "
            "RETURNING owner_epoch",
            (self.boot_id, home, session_id, self.boot_id, *parameters),
        ).fetchone()
        if row is not None:
            return row[0], before[0] is not None, before[1]
        owner = select_owner(connection, session_id)
        if owner is None:
            raise OwnerUnavailableError(
                f"session {session_id}: the pod that has its files is away; try again when it is back",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        return owner

    def _place(self) -> tuple[str, tuple[str, ...]]:
        return (" AND (home IS NULL OR home = ?)", (self._home,)) if self._is_local else ("", ())

    def has_files(self, session_id: str, /) -> bool:
        """Whether the session's files are here, as the last turn left them."""
        return session_id not in self._without_files

    def set_home(self, connection: Connection, session_id: str) -> None:
        """Note in the row that the files are here. A job of the store. Raises OwnershipLostError."""
        condition, parameters = self.guard(session_id)
        noted = connection.execute(
            f"UPDATE sessions SET home = ? WHERE id = ?{condition}",  # noqa: S608  # a constant
            (self._home, session_id, *parameters),
        )
        if not noted.rowcount:
            raise OwnershipLostError(f"session {session_id} is another pod's")

    def note_files_missing(self, session_id: str) -> None:
        """They are not, whatever the row says: until they are restored nothing here may count as them."""
        self._without_files.add(session_id)

    def note_files_here(self, session_id: str) -> None:
        """The row says so by now."""
        self._without_files.discard(session_id)

    def is_new_here(self, session_id: str) -> bool:
        """Whether it was claimed, and not settled here since."""
        return session_id in self._new_here

    def note_settled(self, session_id: str) -> None:
        """What opencode has of it here is complete."""
        self._new_here.discard(session_id)

    @contextmanager
    def creating(self, session_id: str, /) -> Iterator[None]:
        """Own the session from before its row is there; not when that fails."""
        self._epochs[session_id] = 1
        try:
            yield
        except BaseException:
            self._epochs.pop(session_id, None)
            raise

    def claim_new(self, connection: Connection, session_id: str, /) -> None:
        """Make the row that was just inserted ours."""
        connection.execute(
            "UPDATE sessions SET owner_boot = ?, owner_epoch = 1, home = ? WHERE id = ?",
            (self.boot_id, self._home, session_id),
        )

    def guard(self, session_id: str, /) -> tuple[str, tuple[int, ...]]:
        """Return the epoch as a condition. Raises OwnershipLostError."""
        epoch = self._epochs.get(session_id)
        if epoch is None:
            raise OwnershipLostError(f"session {session_id} is another pod's")
        return " AND owner_epoch = ?", (epoch,)

    def lose(self, session_id: str, /) -> None:
        """Forget the session and notify the subscribers."""
        self._new_here.discard(session_id)
        self._without_files.discard(session_id)
        if self._epochs.pop(session_id, None) is None:
            return
        self.losses += 1
        _log.warning("session lost to another pod", session=session_id)
        self._lost(session_id)

    def on_lost(self, callback: Callable[[str], None], /) -> None:
        """Register a callback."""
        self._lost.add(callback)

    async def verify(self) -> None:
        """Lose the sessions that other boots have claimed. Raises StoreError.

        After a lapse of the lease: a commit would notice it, and an agent at work need not commit for long.
        """
        held = dict(self._epochs)

        def select(connection: Connection) -> list[str]:
            query = "SELECT 1 FROM sessions WHERE id = ? AND owner_epoch > ?"
            return [
                session_id
                for session_id, epoch in held.items()
                if connection.execute(query, (session_id, epoch)).fetchone() is not None
            ]

        for session_id in await self._database.read(select):
            if self._epochs.get(session_id) == held[session_id]:
                self.lose(session_id)

    async def others(self) -> list[Owner]:
        """Return the other live boots. Raises StoreError."""
        found = await self._database.read(
            lambda connection: select_others(connection, self.boot_id)
        )
        return [Owner(boot_id, address) for boot_id, address in found]

    async def release(self, session_ids: Sequence[str], /) -> None:
        """Give sessions up, so that no other pod has to wait for our lease to end."""
        held = [(id_, self._epochs.pop(id_)) for id_ in session_ids if id_ in self._epochs]

        def write(connection: Connection) -> None:
            connection.executemany(
                "UPDATE sessions SET owner_boot = NULL WHERE id = ? AND owner_epoch = ?", held
            )

        if held:
            await self._database.write(write)

    async def release_all(self) -> None:
        """Give up everything. Raises StoreError."""
        await self.release(list(self._epochs))

    def unfinished(self, connection: Connection, /) -> list[str]:
        """Return sessions with a turn or a message, whose owner is dead or none; some of many."""
        place, parameters = self._place()
        rows = connection.execute(
            "SELECT id FROM sessions WHERE id IN (SELECT id FROM sessions "  # noqa: S608  # constants
            "WHERE status IN ('running', 'rescheduling') UNION SELECT session_id FROM queued_events) "
            f"AND (owner_boot IS NULL OR NOT {_ALIVE}){place} ORDER BY random() LIMIT ?",
            (*parameters, _TAKEN_AT_ONCE),
        )
        return [row[0] for row in rows]

    def may_delete(self) -> tuple[str, tuple[str, ...]]:
        """Return a condition for sessions that are ours or have no live owner."""
        return f" AND (owner_boot IS NULL OR owner_boot = ? OR NOT {_ALIVE})", (self.boot_id,)

    async def owner_of(self, session_id: str) -> Owner | None:
        """Return the session's live owner, None when there is none. Raises StoreError."""
        return await self._database.read(lambda connection: select_owner(connection, session_id))

    async def least_loaded(self) -> Owner | None:
        """Return another live boot, the one with least to do; it does not own yet. Raises StoreError."""
        address = await self._database.read(
            lambda connection: select_least_loaded(connection, self.boot_id)
        )
        return Owner("", address) if address is not None else None

    def takes_duty(self, connection: Connection, name: str, seconds: float, /) -> bool:
        """Take or keep a duty by its row's lease."""
        return take_duty(connection, name, self.boot_id, seconds)


def select_owner(connection: Connection, session_id: str) -> Owner | None:
    """Return the live owner of a session, None when there is none. PostgreSQL only."""
    row = connection.execute(
        "SELECT boots.boot_id, boots.address FROM sessions JOIN boots ON boots.boot_id = owner_boot "
        "WHERE sessions.id = ? AND boots.expires_at > clock_timestamp()",
        (session_id,),
    ).fetchone()
    return Owner(row[0], row[1]) if row is not None else None
