"""Sessions' files between pods: what counts is what was published whole, and by the owner."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from sidecar.cluster.boots import Boot, Heartbeat, Load
from sidecar.cluster.ownership import OwnershipLostError, SharedOwnership
from sidecar.config import ArchiveSettings, StorageSettings
from sidecar.managed.events.event import Draft
from sidecar.managed.events.log import EventLog, Head
from sidecar.managed.turns.failures import TurnFailedError
from sidecar.managed.workspaces.archives import SessionArchives
from sidecar.store.interface import ObjectError
from sidecar.store.objects import Objects
from sidecar.store.postgres import PostgresStore
from tests.fakes.scripted_child import new_session
from tests.postgres import PostgresCluster
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, s3_server
from tests.waiting import until


class FailingObjects:
    """A bucket that can be told to fail, or to lose its connection when an upload is complete."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.refuses = self.breaks_off = False

    async def put(self, name: str, file: Path) -> None:
        if self.refuses:
            raise ObjectError("no such bucket")
        await self._objects.put(name, file)
        if self.breaks_off:
            raise ObjectError("connection reset")

    async def get(self, name: str, file: Path, *, max_bytes: int) -> str:
        if self.refuses:
            raise ObjectError("no such bucket")
        return await self._objects.get(name, file, max_bytes=max_bytes)

    async def delete(self, names: Sequence[str]) -> None:
        await self._objects.delete(names)

    async def names_under(self, folder: str) -> list[str]:
        return await self._objects.names_under(folder)


class Pod:
    """One boot with a data directory of its own."""

    def __init__(
        self, name: str, directory: Path, store: PostgresStore, settings: ArchiveSettings
    ) -> None:
        self.store = store
        self.home = directory / name
        self.ownership = SharedOwnership(
            database=store, boot_id=f"boot-{name}", home=name, is_local=False, is_restored=True
        )
        boot = Boot(self.ownership.boot_id, name, f"kernel/{name}", f"{name}:8081", name)
        self.heartbeat = Heartbeat(
            connect=store.connect,
            boot=boot,
            load=Load(),
            lease_seconds=30.0,
            interval_seconds=3600.0,
            beat=lambda: None,
        )
        self.objects = FailingObjects(Objects.of(settings))
        self.log = EventLog(database=store, ownership=self.ownership)
        (self.home / "workspaces").mkdir(parents=True)
        self.archives = SessionArchives(
            database=store,
            ownership=self.ownership,
            objects=self.objects,  # type: ignore[arg-type]  # the same methods
            settings=settings,
            storage=StorageSettings(data_dir=self.home, min_free_bytes=0),  # type: ignore[call-arg]
        )
        self.archives.prepare()

    def files(self, session_id: str) -> Path:
        """Return the session's directory."""
        return self.home / "workspaces" / session_id

    async def die(self) -> None:
        """Let the lease end, as the database's clock would."""
        query = "UPDATE boots SET expires_at = clock_timestamp() - interval '1 second' WHERE boot_id = ?"
        await self.store.write(lambda c: c.execute(query, (self.ownership.boot_id,)))


@pytest.fixture(params=["directory", "s3"])
async def settings(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[ArchiveSettings]:
    """A place for archives, whose objects are files below `bucket` in either case."""
    if request.param == "directory":
        yield ArchiveSettings(url=(tmp_path / BUCKET).as_uri(), max_bytes=1_000_000)
        return
    async with s3_server(tmp_path) as server:
        yield ArchiveSettings(
            url=f"s3://{BUCKET}",
            endpoint=server.endpoint,
            access_key=SecretStr(ACCESS_KEY),
            secret_key=SecretStr(SECRET_KEY),
            max_bytes=1_000_000,
        )


@pytest.fixture
async def pods(
    postgres: PostgresCluster, tmp_path: Path, settings: ArchiveSettings
) -> AsyncIterator[list[Pod]]:
    """Two registered pods over one database and one bucket."""
    url = postgres.url()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("a", "b"):
            store = PostgresStore(url)
            await store.open()
            stack.push_async_callback(store.close)
            pod = Pod(name, tmp_path, store, settings)
            await store.write(pod.heartbeat.register)
            made.append(pod)
        yield made


@pytest.fixture
async def session(pods: list[Pod]) -> str:
    """A session of the first pod with a file, which is archived."""
    session_id = await new_session(pods[0].store)
    await pods[0].ownership.acquire(session_id)
    await pods[0].archives.restore(session_id)
    pods[0].files(session_id).mkdir()
    (pods[0].files(session_id) / "file").write_text("one")
    await pods[0].archives.save(session_id, 0)
    return session_id


def bucket(tmp_path: Path) -> list[str]:
    """Return the objects there are."""
    return sorted(path.name for path in (tmp_path / BUCKET).glob("sesn_*/*.zst"))


async def move(session_id: str, source: Pod, target: Pod) -> None:
    """The source dies, and the target takes the session with its files."""
    await source.die()
    await target.ownership.acquire(session_id)
    await target.archives.restore(session_id)


async def test_files_travel_and_come_back(pods: list[Pod], session: str, tmp_path: Path) -> None:
    """Another pod has them after its claim; what it makes of them is what the first finds later."""
    a, b = pods
    await move(session, a, b)
    assert (b.files(session) / "file").read_text() == "one"
    (b.files(session) / "file").write_text("two")
    await b.archives.save(session, 0)
    await a.store.write(a.heartbeat.register)
    await a.store.write(
        lambda c: c.execute("UPDATE boots SET expires_at = clock_timestamp() + interval '1 minute'")
    )
    await b.ownership.release([session])
    a.ownership.lose(session)
    a.archives.forget(session)
    await a.ownership.acquire(session)
    assert (a.files(session) / "file").read_text() == "one"  # from before: not to be taken for it
    assert await a.archives.restore(session)
    assert (a.files(session) / "file").read_text() == "two"
    assert len(bucket(tmp_path)) == 1


async def test_what_did_not_change_is_not_archived_again(pods: list[Pod], session: str) -> None:
    """The first save after a restore neither."""
    a, b = pods
    assert a.archives.saved == 1
    await a.archives.save(session, 0)
    assert a.archives.saved == 1
    await move(session, a, b)
    await b.archives.save(session, 0)
    assert b.archives.saved == 0


@pytest.mark.parametrize("fault", ["refuses", "breaks_off"])
async def test_an_archive_that_fails_leaves_the_one_before(
    pods: list[Pod], session: str, tmp_path: Path, fault: str
) -> None:
    """Whatever the bucket says or does: the turn ends, the next try makes it, nothing is left over."""
    a, b = pods
    before = bucket(tmp_path)
    (a.files(session) / "file").write_text("two")
    setattr(a.objects, fault, True)
    await a.archives.save(session, 0)
    assert a.archives.failed == 1
    assert bucket(tmp_path) == before
    setattr(a.objects, fault, False)
    await a.archives.save(session, 0)
    assert len(bucket(tmp_path)) == 1
    assert list((a.home / "archives").iterdir()) == []
    await move(session, a, b)
    assert (b.files(session) / "file").read_text() == "two"


async def test_a_former_owner_publishes_nothing(
    pods: list[Pod], session: str, tmp_path: Path
) -> None:
    """Its archive is complete when it hears that the session is another's: that one's counts."""
    a, b = pods
    (a.files(session) / "file").write_text("late")
    await move(session, a, b)
    (b.files(session) / "file").write_text("the owner's")
    await b.archives.save(session, 0)
    with pytest.raises(OwnershipLostError):
        await a.archives.save(session, 0)
    assert len(bucket(tmp_path)) == 1
    shutil.rmtree(b.files(session))
    b.archives.forget(session)
    await b.archives.restore(session)
    assert (b.files(session) / "file").read_text() == "the owner's"


async def test_files_that_cannot_be_restored_fail_the_turn_and_lose_nothing(
    pods: list[Pod], session: str, tmp_path: Path
) -> None:
    """No turn works in an empty directory in their place, and its end overwrites no archive."""
    a, b = pods
    (file,) = (tmp_path / BUCKET).glob("sesn_*/*.zst")
    whole = file.read_bytes()
    await a.die()
    await b.ownership.acquire(session)
    for damage in (whole[:-10] + b"0123456789", b"", None):
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(TurnFailedError, match="cannot be restored"):
            await b.archives.restore(session)
        b.files(session).mkdir(exist_ok=True)
        await b.archives.save(session, 0)  # the failed turn's end
        b.files(session).rmdir()
    file.write_bytes(whole)
    assert await b.archives.restore(session)
    assert (b.files(session) / "file").read_text() == "one"
    assert b.archives.failed == 3
    assert list((b.home / "workspaces").glob(".restoring-*")) == []


async def test_a_lost_work_directory_is_restored_on_its_own_pod(
    pods: list[Pod], session: str
) -> None:
    """The data directory is the same, and the volume for `WORKDIR` is empty."""
    a, _ = pods
    shutil.rmtree(a.files(session))
    a.archives.forget(session)
    assert await a.archives.restore(session)
    assert (a.files(session) / "file").read_text() == "one"


async def test_tools_after_the_archive_are_told_to_the_model(pods: list[Pod], session: str) -> None:
    """A pod died in a turn: the next prompt says that files are older than the conversation."""
    a, b = pods
    head = Head(0, 0)
    await a.log.append(session, head, [Draft("agent.tool_use")])
    await move(session, a, b)
    assert "earlier turn" in b.archives.preamble(session)
    await b.archives.save(session, head.seq)
    assert b.archives.preamble(session) == ""


async def test_an_emptied_directory_is_empty_elsewhere(pods: list[Pod], session: str) -> None:
    """Deleting all files is a change like any other."""
    a, b = pods
    (a.files(session) / "file").unlink()
    await a.archives.save(session, 0)
    await move(session, a, b)
    assert not b.files(session).exists()


async def test_too_large_stays_on_its_pod(pods: list[Pod], session: str) -> None:
    """Above the bound the archive before is what another pod gets, and the failure is counted."""
    a, b = pods
    (a.files(session) / "large").write_bytes(b"x" * 1_000_001)
    await a.archives.save(session, 0)
    assert a.archives.failed == 1
    await move(session, a, b)
    assert [path.name for path in b.files(session).iterdir()] == ["file"]


async def test_archives_go_with_their_session(
    pods: list[Pod], session: str, tmp_path: Path
) -> None:
    """Also those that a crash left between upload and publication; other sessions keep theirs."""
    a, b = pods
    other = await new_session(a.store)
    await a.ownership.acquire(other)
    await a.archives.restore(other)
    a.files(other).mkdir()
    (a.files(other) / "file").write_text("kept")
    await a.archives.save(other, 0)
    (stray,) = (tmp_path / BUCKET / session).iterdir()
    shutil.copy(stray, stray.with_name("stray.tar.zst"))
    assert len(bucket(tmp_path)) == 3
    await a.store.write(lambda c: c.execute("DELETE FROM sessions WHERE id = ?", (session,)))
    sweeping = asyncio.create_task(b.archives.run())
    b.archives.sweep_soon()
    try:
        await until(lambda: _has_rows(a.store, [other]))
    finally:
        sweeping.cancel()
    assert len(bucket(tmp_path)) == 1


async def test_an_archive_of_many_parts(settings: ArchiveSettings, tmp_path: Path) -> None:
    """A file above the size of a part comes back as it was; one above the bound does not come."""
    objects, file = Objects.of(settings), tmp_path / "file"
    file.write_bytes(os.urandom(20_000_000))
    await objects.put("sesn_x/large.tar.zst", file)
    digest = await objects.get("sesn_x/large.tar.zst", tmp_path / "back", max_bytes=20_000_000)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    with pytest.raises(ObjectError, match="larger"):
        await objects.get("sesn_x/large.tar.zst", tmp_path / "more", max_bytes=19_999_999)
    assert await objects.names_under("sesn_x") == ["sesn_x/large.tar.zst"]
    await objects.delete(["sesn_x/large.tar.zst", "sesn_x/absent"])
    assert await objects.names_under("sesn_x") == []


async def _has_rows(store: PostgresStore, wanted: list[str]) -> bool:
    query = "SELECT session_id FROM archives"
    return wanted == await store.read(lambda c: [row[0] for row in c.execute(query)])
