"""`SIDECAR_WORKSPACE=archive`: files follow their session to a pod that shares no volume."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.bed import Bed, Pod, cluster_of
from tests.event_rules import check_events
from tests.harness import http_client, text_of
from tests.postgres import PostgresCluster
from tests.raw_client import RawClient, plain
from tests.s3_server import s3_server
from tests.waiting import until

_MAKE = "[[bash: mkdir -p src && printf one > src/file && chmod 750 src && ln -s src/file link]]"


@pytest.fixture(scope="module")
async def bed(postgres: PostgresCluster) -> AsyncIterator[Bed]:
    """Two pods, each with a `WORKDIR` of its own, and a directory for archives."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
        settings = {
            "SIDECAR_WORKSPACE": "archive",
            "SIDECAR_ARCHIVE_URL": Path(directory, "archives").as_uri(),
            "WORKDIR": "{pod}/workspaces",
        }
        async with cluster_of(2, Path(directory), postgres, **settings) as made:
            yield made


def archives(bed: Bed, session: str) -> list[Path]:
    """Return the archives that are kept of a session."""
    return list((bed.directory / "archives" / session).glob("*"))


def result_of(events: list[dict[str, object]]) -> str:
    """Return what the last tool printed."""
    return str(plain(events, "agent.tool_result")[-1]["content"])


async def ready_pair(bed: Bed) -> tuple[Pod, Pod]:
    """Return two pods whose opencode is ready."""
    alive = [pod for pod in bed.pods if pod.process.process.returncode is None]
    while len(alive) < 2:
        alive.append(await bed.start_pod())
    for pod in alive:
        await pod.process.logged("child ready", seconds=120)
    return alive[-2], alive[-1]


async def test_files_of_a_finished_turn_survive_the_pod(bed: Bed) -> None:
    """The owner is killed between two turns: the next one, elsewhere, finds files, modes and links."""
    owner, other = await ready_pair(bed)
    async with http_client(owner.url) as http:
        session = await bed.new_session(owner)
        await RawClient(http).turn(session, f"{_MAKE} [[then]] [[say: made]]")
    await bed.kill(owner)
    async with http_client(other.url) as http:
        client = RawClient(http)
        look = "[[bash: cat link && stat -c %a src && pwd]] [[then]] [[say: seen]]"
        events = await client.turn(session, look, seconds=120)
        assert f"one750\n{other.data_dir}/workspaces/{session}" in result_of(events).replace(
            "\\n", "\n"
        )
        events = await client.events(session)
    check_events(events)
    assert text_of(events) == "madeseen"
    assert "earlier turn" not in str(list(bed.gateway.requests)[-1])


async def test_files_travel_through_a_bucket(postgres: PostgresCluster) -> None:
    """The same through a real S3 server, with nothing shared but that and the database."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        directory = Path(name)
        async with s3_server(directory / "s3") as server:
            settings = {
                **server.settings(),
                "SIDECAR_WORKSPACE": "archive",
                "WORKDIR": "{pod}/workspaces",
            }
            async with cluster_of(2, directory, postgres, **settings) as bed:
                owner, other = bed.pods
                async with http_client(owner.url) as http:
                    session = await bed.new_session(owner)
                    await RawClient(http).turn(session, f"{_MAKE} [[then]] [[say: made]]")
                await bed.kill(owner)
                async with http_client(other.url) as http:
                    look = "[[bash: cat link]] [[then]] [[say: seen]]"
                    events = await RawClient(http).turn(session, look, seconds=120)
                assert "one" in result_of(events)


async def test_a_cut_turn_loses_its_own_files_only_and_says_so(bed: Bed) -> None:
    """The owner is killed in a turn: the client's stream says what is lost, and so does the prompt."""
    owner, other = await ready_pair(bed)
    async with http_client(owner.url) as at_owner, http_client(other.url) as at_other:
        session = await bed.new_session(owner)
        await RawClient(at_owner).turn(session, f"{_MAKE} [[then]] [[say: made]]")
        client = RawClient(at_other)
        async with client.stream(session) as reader:
            await client.send(session, "[[bash: echo cut > src/cut; sleep 60]]")
            await reader.until("agent.tool_use")
            await until((owner.data_dir / "workspaces" / session / "src" / "cut").exists)
            await bed.kill(owner)
            await reader.until("session.status_idle", seconds=120)
            (error,) = plain(reader.seen, "session.error")
            assert "what it changed in files is lost" in str(error)
            await client.send(session, "[[bash: ls src]] [[then]] [[say: seen]]")
            events = await reader.until("session.status_idle", seconds=120)
    assert "file" in result_of(events)
    assert "cut" not in result_of(events)
    assert "earlier turn" in str(list(bed.gateway.requests)[-1])


async def test_a_pod_that_stops_leaves_its_files(bed: Bed) -> None:
    """SIGTERM in a turn: its end is published when its files are kept, and another pod goes on with them."""
    owner, other = await ready_pair(bed)
    async with http_client(other.url) as at_other:
        session = await bed.new_session(owner)
        client = RawClient(at_other)
        async with client.stream(session) as reader:
            await client.send(session, "[[bash: sleep 2; echo late > file]] [[then]] [[say: made]]")
            await reader.until("agent.tool_use")
            bed.front.remove(owner.url)
            owner.process.send(15)
            await reader.until("session.status_idle", seconds=120)
            assert not plain(reader.seen, "session.error")
            await client.send(session, "[[bash: cat file]] [[then]] [[say: seen]]")
            events = await reader.until("session.status_idle", seconds=120)
            assert await owner.process.ended() == 0
    assert "late" in result_of(events)


async def test_archives_are_deleted_with_the_session(bed: Bed) -> None:
    """One archive while it lives, none afterwards."""
    owner, _ = await ready_pair(bed)
    async with http_client(owner.url) as http:
        client = RawClient(http)
        session = await client.new_session()
        for _ in range(2):
            await client.turn(session, "[[bash: date +%N >> file]] [[then]] [[say: made]]")
        assert len(archives(bed, session)) == 1
        async with http.delete(f"/v1/sessions/{session}") as response:
            assert response.status == 200
        await until(lambda: not archives(bed, session))
