"""Who owns a session: claims, heartbeats on the database's clock, the fence in every commit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from sidecar.cluster.boots import Boot, Heartbeat, Load, select_least_loaded, take_duty
from sidecar.cluster.ownership import (
    OwnedElsewhereError,
    OwnershipLostError,
    SharedOwnership,
    select_owner,
)
from sidecar.errors import NotFoundError, OwnerUnavailableError
from sidecar.managed.common import timestamps
from sidecar.managed.events.event import Draft
from sidecar.managed.events.log import EventLog, Head
from sidecar.store.interface import Connection
from sidecar.store.postgres import PostgresStore
from tests.fakes.scripted_child import new_session
from tests.postgres import PostgresCluster

LEASE_SECONDS = 3600.0
"""Nothing renews a lease here, and none runs out: a pod dies when the test says so."""

Pods = Callable[..., Any]


class Pod:
    """One boot: its store, what it owns, its heartbeat."""

    def __init__(self, store: PostgresStore, name: str, *, home: str, is_local: bool) -> None:
        self.store = store
        self.load = Load()
        self.beats = 0
        self.lapses = 0
        self.ownership = SharedOwnership(database=store, boot_id=name, home=home, is_local=is_local)
        self.heartbeat = Heartbeat(
            connect=store.connect,
            boot=Boot(name, name, f"kernel/{home}", f"{name}:8081", home),
            load=self.load,
            lease_seconds=LEASE_SECONDS,
            interval_seconds=3600.0,
            beat=self._beat,
            on_lapse=self._lapse,
        )
        self.log = EventLog(database=store, ownership=self.ownership)

    def _beat(self) -> None:
        self.beats += 1

    def _lapse(self) -> None:
        self.lapses += 1

    async def die(self) -> None:
        """Let the lease end, as the database's clock would."""
        await self.store.write(
            lambda c: c.execute(
                "UPDATE boots SET expires_at = clock_timestamp() - interval '1 second' "
                "WHERE boot_id = ?",
                (self.ownership.boot_id,),
            )
        )


@pytest.fixture
async def pods(postgres: PostgresCluster) -> AsyncIterator[Pods]:
    """Make pods over one database; each is registered, and renews nothing by itself."""
    url = postgres.url()
    async with AsyncExitStack() as stack:

        async def make(name: str, *, home: str | None = None, is_local: bool = False) -> Pod:
            store = PostgresStore(url)
            await store.open()
            stack.push_async_callback(store.close)
            pod = Pod(store, name, home=home or name, is_local=is_local)
            await store.write(pod.heartbeat.register)
            return pod

        yield make


async def test_of_all_that_claim_at_once_one_wins(pods: Pods) -> None:
    """A thousand claims by four pods: each session has one owner, and the others learn which pod it is."""
    made = [await pods(f"boot-{n}") for n in range(4)]
    for _ in range(250):
        session_id = await new_session(made[0].store)
        claims = [pod.ownership.acquire(session_id) for pod in made]
        results = await asyncio.gather(*claims, return_exceptions=True)
        (winner,) = [pod for pod, result in zip(made, results, strict=True) if result is None]
        owners = [r.owner.boot_id for r in results if isinstance(r, OwnedElsewhereError)]
        assert owners == [winner.ownership.boot_id] * 3


async def test_a_dead_pods_session_is_taken_and_its_late_commit_is_refused(pods: Pods) -> None:
    """The new owner appends; the old one's append touches no row and raises; its subscribers hear of it."""
    old, new = await pods("old"), await pods("new")
    session_id = await new_session(old.store)
    lost: list[str] = []
    old.ownership.on_lost(lost.append)
    await old.ownership.acquire(session_id)
    head = Head(0, 0)
    await old.log.append(session_id, head, [Draft("agent.message")])
    with pytest.raises(OwnedElsewhereError):
        await new.ownership.acquire(session_id)

    await old.die()
    await new.ownership.acquire(session_id)
    await new.log.append(session_id, Head(head.seq, head.processed_us), [Draft("agent.message")])
    for drafts in ([Draft("agent.message")], []):
        with pytest.raises(OwnershipLostError):
            await old.log.append(session_id, head, drafts)
    assert lost == [session_id]
    assert [e.seq async for e in new.log.events_after(session_id, 0)] == [1, 2]
    assert not old.ownership.owns(session_id)


async def test_a_late_renewal_succeeds_when_nobody_claimed(pods: Pods) -> None:
    """A pause that ended before any claim costs nothing: same owner, same epoch, commits go on."""
    pod, other = await pods("paused"), await pods("other")
    session_id = await new_session(pod.store)
    await pod.ownership.acquire(session_id)
    await pod.die()
    pod.heartbeat._renew_once(pod.store.connect())
    with pytest.raises(OwnedElsewhereError):
        await other.ownership.acquire(session_id)
    await pod.log.append(session_id, Head(0, 0), [Draft("agent.message")])
    assert pod.beats == 1
    assert pod.lapses == 1
    pod.heartbeat._renew_once(pod.store.connect())
    assert pod.lapses == 1


async def test_after_a_lapse_what_others_took_is_lost_without_a_commit(pods: Pods) -> None:
    """A database that came back with its clock ahead ends every lease at once: a pod whose agents work on
    hears with its next renewal which sessions are another's, and keeps the rest."""
    pod, other = await pods("ahead"), await pods("other")
    taken, kept = await new_session(pod.store), await new_session(pod.store)
    lost: list[str] = []
    pod.ownership.on_lost(lost.append)
    for session_id in (taken, kept):
        await pod.ownership.acquire(session_id)
    with pod.ownership.creating("sesn_of_a_row_that_is_not_there_yet"):
        await pod.die()
        await other.ownership.acquire(taken)
        pod.heartbeat._renew_once(pod.store.connect())
        assert pod.lapses == 1
        await pod.ownership.verify()
        assert pod.ownership.owns("sesn_of_a_row_that_is_not_there_yet")
    assert lost == [taken]
    assert pod.ownership.owns(kept)


async def test_pods_whose_clocks_differ_number_time_in_one_order(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is an hour ahead: leases are the database's, and `processed_at` never goes back in a session."""
    right, ahead = await pods("right"), await pods("ahead")
    session_id = await new_session(right.store)
    now_us = timestamps.now_us
    head = Head(0, 0)
    for pod, offset_us in ((right, 0), (ahead, 3_600_000_000), (right, 0), (ahead, -3_600_000_000)):
        monkeypatch.setattr(timestamps, "now_us", lambda offset_us=offset_us: now_us() + offset_us)
        await pod.ownership.acquire(session_id)
        await pod.log.append(session_id, head, [Draft("agent.message"), Draft("agent.message")])
        await pod.ownership.release([session_id])
        (row,) = await pod.store.read(
            lambda c: c.execute(
                "SELECT last_seq, last_processed_us FROM sessions WHERE id = ?", (session_id,)
            ).fetchall()
        )
        head = Head(row[0], row[1])
    times = [event.processed_us async for event in right.log.events_after(session_id, 0)]
    assert len(times) == 8
    assert times == sorted(set(times))


async def test_a_pruned_boot_registers_again(pods: Pods) -> None:
    """A pod that was away for an hour finds its row gone, and its sessions claimable until then."""
    pod, other = await pods("away"), await pods("other")
    session_id = await new_session(pod.store)
    await pod.ownership.acquire(session_id)
    await pod.store.write(lambda c: c.execute("DELETE FROM boots WHERE boot_id = 'away'"))
    await other.ownership.acquire(session_id)
    pod.heartbeat._renew_once(pod.store.connect())
    owner = await pod.store.read(lambda c: select_owner(c, session_id))
    assert owner is not None
    assert owner.boot_id == "other"


async def test_a_restart_on_the_same_machine_ends_the_earlier_boot_at_once(pods: Pods) -> None:
    """The lock of the data directory proves that the earlier process is dead: its lease is not waited for."""
    first, second = await pods("first", home="volume"), await pods("second", home="volume")
    session_id = await new_session(first.store)
    await first.ownership.acquire(session_id)
    with pytest.raises(OwnedElsewhereError):
        await second.ownership.acquire(session_id)
    await second.store.write(second.heartbeat.end_earlier_boots)
    await second.ownership.acquire(session_id)


async def test_files_on_a_volume_keep_a_session_with_it(pods: Pods) -> None:
    """With `SIDECAR_WORKSPACE=local` no other volume's pod may take it; its own, restarted, may."""
    owner = await pods("owner", home="a", is_local=True)
    stranger = await pods("stranger", home="b", is_local=True)
    session_id = await new_session(owner.store)
    await owner.ownership.acquire(session_id)
    await owner.die()
    with pytest.raises(OwnerUnavailableError):
        await stranger.ownership.acquire(session_id)
    again = await pods("again", home="a", is_local=True)
    await again.ownership.acquire(session_id)


async def test_a_released_session_is_anybodys(pods: Pods) -> None:
    """At a drain idle sessions are given up at once; the next commit of the former owner is refused."""
    old, new = await pods("old"), await pods("new")
    session_id = await new_session(old.store)
    await old.ownership.acquire(session_id)
    await old.ownership.release([session_id])
    with pytest.raises(OwnershipLostError):
        await old.log.append(session_id, Head(0, 0), [])
    await new.ownership.acquire(session_id)


async def test_only_work_that_nobody_alive_does_is_found(pods: Pods) -> None:
    """A second pod that starts leaves the turns of the living alone."""
    alive, dead, third = await pods("alive"), await pods("dead"), await pods("third")
    sessions = {}
    for pod in (alive, dead):
        sessions[pod] = await new_session(pod.store)
        await pod.ownership.acquire(sessions[pod])

    def run_all(connection: Connection) -> None:
        connection.execute("UPDATE sessions SET status = 'running'")

    await third.store.write(run_all)
    await dead.die()
    assert await third.store.read(third.ownership.unfinished) == [sessions[dead]]


async def test_unknown_sessions_cannot_be_claimed(pods: Pods) -> None:
    """A deleted or invented session is an unknown one."""
    pod = await pods("pod")
    with pytest.raises(NotFoundError):
        await pod.ownership.acquire("sesn_unknown")


async def test_one_pod_at_a_time_has_a_duty(pods: Pods) -> None:
    """Its lease is kept by renewing it, and free when it has run out."""
    one, two = await pods("one"), await pods("two")

    async def take(pod: Pod, seconds: float) -> bool:
        boot_id = pod.ownership.boot_id
        return await pod.store.write(lambda c: take_duty(c, "retention", boot_id, seconds))

    assert await take(one, 60)
    assert not await take(two, 60)
    assert await take(one, -1)
    assert await take(two, 60)


async def test_new_work_goes_to_the_least_loaded(pods: Pods) -> None:
    """Not to oneself, not to one that drains, not to a dead one."""
    made = {name: await pods(name) for name in ("me", "busy", "calm", "draining", "dead")}
    made["busy"].load.cpu, made["calm"].load.cpu = 0.9, 0.2
    made["draining"].load.is_draining = True
    for pod in made.values():
        pod.heartbeat._renew_once(pod.store.connect())
    await made["dead"].die()
    found = await made["me"].store.read(lambda c: select_least_loaded(c, "me"))
    assert found == "calm:8081"


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_numbers_stay_whole(pods: Pods, seed: int) -> None:
    """Random deaths, releases, claims and appends: no number twice, none missing, one owner's at a time."""
    chance = random.Random(seed)
    made = [await pods(f"boot-{seed}-{n}") for n in range(3)]
    session_id = await new_session(made[0].store)
    appended = 0
    for _ in range(60):
        pod = chance.choice(made)
        match chance.randrange(5):
            case 0:
                await pod.die()
            case 1:
                pod.heartbeat._renew_once(pod.store.connect())
            case 2:
                await pod.ownership.release([session_id])
            case _:
                try:
                    await pod.ownership.acquire(session_id)
                    last = await pod.log.last_seq(session_id)
                    await pod.log.append(session_id, Head(last, last), [Draft("agent.message")])
                except (OwnedElsewhereError, OwnershipLostError):
                    continue
                appended += 1
    numbers = [event.seq async for event in made[0].log.events_after(session_id, 0)]
    assert numbers == list(range(1, appended + 1))
