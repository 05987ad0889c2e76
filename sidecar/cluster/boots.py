"""This boot's row: registered at the start, renewed by a thread and a connection of its own.

The event loop may be late and the store's connections may be busy; neither may look like a dead pod. After
each renewal the thread beats the guardian (`sidecar.processes.guardian`), which stops opencode when the
beats end: what an agent does outside the database no fence can hold back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from sidecar.store.interface import Connection, Job

_PRUNED_AFTER_SECONDS = 3600
"""After this, rows of dead boots and answers to forwarded requests are removed."""

_log = structlog.get_logger(__name__)


class Link(Protocol):
    """A connection of one thread; `sidecar.store.postgres_link.Link`."""

    def run(self, job: Job[Any]) -> Any:
        """Run `job` in one transaction."""

    def close(self) -> None:
        """Close it; the next use opens another."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What the other pods know of this one."""

    boot_id: str
    pod: str
    incarnation: str
    """Earlier boots with the same one are dead; see `sidecar.store.identity`."""
    address: str
    home: str


@dataclass(slots=True)
class Load:
    """How much a pod has to do, for placing new sessions. Written by the loop, read by the thread."""

    cpu: float = 0.0
    """Share of a core that opencode uses; near 1 it is full."""
    turns: int = 0
    is_draining: bool = False


class Heartbeat:
    """Keeps the row of this boot."""

    def __init__(
        self,
        *,
        connect: Callable[[], Link],
        boot: Boot,
        load: Load,
        lease_seconds: float,
        interval_seconds: float,
        beat: Callable[[], None],
        on_lapse: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._boot = boot
        self._load = load
        self._lease_seconds = lease_seconds
        self._interval_seconds = interval_seconds
        self._beat = beat
        self._on_lapse = on_lapse
        self._is_over = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.renewals = 0
        self.failed_renewals = 0
        self.lapses = 0
        """Renewals that came too late: after a long pause, or when the database's clock jumped."""

    def start(self) -> None:
        """Begin to renew the row that `register` made."""
        self._beat()
        self._thread.start()

    def end_earlier_boots(self, connection: Connection) -> None:
        """Declare the earlier boots of this data directory dead. A job of the store.

        To be run when nothing of them is left, their opencode included.
        """
        connection.execute(
            "UPDATE boots SET expires_at = clock_timestamp() WHERE incarnation = ? AND boot_id <> ? "
            "AND expires_at > clock_timestamp()",
            (self._boot.incarnation, self._boot.boot_id),
        )

    def renew_now(self) -> None:
        """Let the others know at once what `load` says now."""
        self._wake.set()

    def stop(self) -> None:
        """Stop renewing and remove the row, best effort. Blocking."""
        self._is_over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        link = self._connect()
        while not self._is_over.is_set():
            self._wake.wait(self._interval_seconds)
            self._wake.clear()
            self._renew_once(link)
        try:
            link.run(self._delete)
        except Exception as error:  # noqa: BLE001, RUF100  # it expires by itself
            _log.warning("boot not removed", error=str(error).partition("\n")[0])
        link.close()

    def _renew_once(self, link: Link) -> None:
        try:
            has_lapsed = link.run(self._renew)
        except Exception as error:  # noqa: BLE001, RUF100  # whatever it is, the lease is not renewed
            self.failed_renewals += 1
            _log.warning("lease not renewed", error=str(error).partition("\n")[0])
            link.close()
        else:
            self.renewals += 1
            self._beat()
            if has_lapsed:
                self.lapses += 1
                _log.warning(
                    "lease had run out before it was renewed: others may have our sessions"
                )
                self._on_lapse()

    def register(self, connection: Connection) -> None:
        """Insert the row. A job of the store."""
        boot = self._boot
        connection.execute(
            "INSERT INTO boots (boot_id, pod, incarnation, address, home, expires_at) VALUES "
            "(?, ?, ?, ?, ?, clock_timestamp() + make_interval(secs => ?)) ON CONFLICT DO NOTHING",
            (
                boot.boot_id,
                boot.pod,
                boot.incarnation,
                boot.address,
                boot.home,
                self._lease_seconds,
            ),
        )

    def _renew(self, connection: Connection) -> bool:
        """Renew the row; return whether the lease had run out meanwhile. A job of the store."""
        load = self._load
        renewed = connection.execute(
            "UPDATE boots SET expires_at = clock_timestamp() + make_interval(secs => ?), load = ?, "
            "turns = ?, is_draining = ? FROM (SELECT boot_id, expires_at FROM boots WHERE boot_id = ? "
            "FOR UPDATE) AS before WHERE boots.boot_id = before.boot_id "
            "RETURNING before.expires_at < clock_timestamp()",
            (self._lease_seconds, load.cpu, load.turns, load.is_draining, self._boot.boot_id),
        ).fetchone()
        if renewed is None:  # pruned: we were away for an hour
            self.register(connection)
        for query in (
            "DELETE FROM boots WHERE expires_at < clock_timestamp() - make_interval(secs => ?)",
            "DELETE FROM requests WHERE stored_at < clock_timestamp() - make_interval(secs => ?)",
        ):
            connection.execute(query, (_PRUNED_AFTER_SECONDS,))
        return renewed is None or bool(renewed[0])

    def _delete(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE sessions SET owner_boot = NULL WHERE owner_boot = ?", (self._boot.boot_id,)
        )
        connection.execute("DELETE FROM boots WHERE boot_id = ?", (self._boot.boot_id,))


def select_others(connection: Connection, boot_id: str) -> list[tuple[str, str]]:
    """Return (boot id, address) of the other live boots."""
    rows = connection.execute(
        "SELECT boot_id, address FROM boots WHERE expires_at > clock_timestamp() AND boot_id <> ?",
        (boot_id,),
    )
    return [(row[0], row[1]) for row in rows]


def select_least_loaded(connection: Connection, except_boot: str) -> str | None:
    """Return the address of the live boot that has least to do, None when there is no other."""
    row = connection.execute(
        "SELECT address FROM boots WHERE expires_at > clock_timestamp() AND NOT is_draining "
        "AND boot_id <> ? ORDER BY load, turns, boot_id LIMIT 1",
        (except_boot,),
    ).fetchone()
    return row[0] if row is not None else None


def take_duty(connection: Connection, name: str, boot_id: str, seconds: float) -> bool:
    """Take or keep a duty that one boot of all has at a time; return whether it is ours for `seconds`."""
    return bool(
        connection.execute(
            "INSERT INTO duties (name, boot_id, expires_at) VALUES "
            "(?, ?, clock_timestamp() + make_interval(secs => ?)) ON CONFLICT (name) DO UPDATE "
            "SET boot_id = excluded.boot_id, expires_at = excluded.expires_at "
            "WHERE duties.boot_id = excluded.boot_id OR duties.expires_at < clock_timestamp()",
            (name, boot_id, seconds),
        ).rowcount
    )
