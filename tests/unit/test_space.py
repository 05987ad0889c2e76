"""The bound on a session's directory, and who is stopped when the disk is nearly full."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config import StorageSettings
from sidecar.managed.sessions.space import SpaceWatch
from sidecar.managed.turns.failures import Failure
from sidecar.managed.workspaces.disk_use import FreeSpace

MB = 1_000_000


class Stage:
    """A watch over directories of this test, with sessions that are only names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keepers = root / "keepers"
        self.keepers.mkdir()
        self.workspaces = root / "workspaces"
        self.workspaces.mkdir()
        self.running: set[str] = set()
        self.ended: list[tuple[str, str]] = []
        self.killed: list[str] = []
        self.space = FreeSpace(1000 * MB, 10_000 * MB)
        settings = {
            "WORKDIR": self.workspaces,
            "max_workspace_bytes": 10 * MB,
            "min_free_bytes": 100 * MB,
        }
        self.watch = SpaceWatch(
            settings=StorageSettings(**settings),  # type: ignore[arg-type]  # test values
            sessions=self,
            directories_of=lambda name: [self.workspaces / name, root / "private" / name],
            end_processes=self._end,
            keepers_dir=self.keepers,
            free=lambda _directory: self.space,
        )
        self._sockets: list[socket.socket] = []

    def running_sessions(self) -> Iterator[str]:
        yield from self.running

    def end_turn_for(self, session_id: str, failure: Failure) -> bool:
        if session_id not in self.running:
            return False
        self.running.discard(session_id)
        self.ended.append((session_id, failure.message))
        return True

    async def _end(self, directory: Path) -> bool:
        self.killed.append(directory.name)
        socket_file = self.keepers / directory.name
        existed = socket_file.exists()
        socket_file.unlink(missing_ok=True)
        return existed

    def keep(self, name: str) -> None:
        """Let the session have processes."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.keepers / name))
        self._sockets.append(listener)

    def write(self, name: str, size: int, file: str = "file") -> None:
        """Have the session's directory hold a file of that size."""
        path = self.workspaces / name / file
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)

    async def turn(self, name: str) -> None:
        """Begin a turn and look at it, as at a tool's end."""
        self.running.add(name)
        await self.look()

    async def look(self) -> None:
        """Look until everything that is due was measured."""
        for name in [path.name for path in self.workspaces.iterdir()]:
            if (known := self.watch._measured.get(name)) is not None:
                known.due = 0.0
        for _ in range(3):
            await self.watch.look()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage in a directory of its own."""
    return Stage(tmp_path)


async def test_a_session_within_its_bound_goes_on(stage: Stage) -> None:
    """Its size is known, nothing else happens."""
    stage.write("a", 9 * MB)
    await stage.turn("a")
    assert (stage.ended, stage.killed, stage.watch.stopped) == ([], [], 0)
    assert 9 * MB <= stage.watch.largest_bytes < 10 * MB


async def test_a_session_above_its_bound_is_stopped(stage: Stage) -> None:
    """Its processes end, its turn fails with the bound, the setting and the size. Others go on."""
    stage.write("a", 30 * MB)
    stage.write("b", MB)
    stage.running.add("b")
    await stage.turn("a")
    await stage.look()
    ((name, message),) = stage.ended
    assert name == "a"
    assert "30,0" in message
    assert "10,000,000 bytes (SIDECAR_STORAGE_MAX_WORKSPACE_BYTES)" in message
    assert stage.killed == ["a"]
    assert stage.watch.stopped == 1
    assert stage.running == {"b"}


async def test_a_stopped_session_may_delete_and_not_grow(stage: Stage) -> None:
    """Above its bound it may go on while it does not grow; what it has freed does not come back."""
    stage.write("a", 30 * MB)
    await stage.turn("a")
    await stage.turn("a")
    assert len(stage.ended) == 1
    stage.write("a", 5 * MB, "more")
    await stage.look()
    assert len(stage.ended) == 2
    (stage.workspaces / "a" / "file").unlink()
    stage.write("a", 15 * MB)
    await stage.turn("a")
    assert len(stage.ended) == 2
    stage.write("a", 25 * MB)
    await stage.look()
    assert len(stage.ended) == 3


async def test_below_its_bound_a_session_is_free_again(stage: Stage) -> None:
    """The bound holds as before."""
    stage.write("a", 30 * MB)
    await stage.turn("a")
    (stage.workspaces / "a" / "file").unlink()
    await stage.turn("a")
    stage.write("a", 8 * MB, "new")
    await stage.look()
    assert len(stage.ended) == 1
    stage.write("a", 11 * MB, "new")
    await stage.look()
    assert len(stage.ended) == 2


async def test_what_grows_between_turns_is_stopped(stage: Stage) -> None:
    """A background process ends; the next turn reports it, the one after that may delete."""
    stage.write("a", 30 * MB)
    stage.keep("a")
    await stage.look()
    assert (stage.killed, stage.ended, stage.watch.stopped) == (["a"], [], 1)
    await stage.turn("a")
    assert len(stage.ended) == 1
    await stage.turn("a")
    assert len(stage.ended) == 1


async def test_the_tmp_and_home_of_a_session_count(stage: Stage) -> None:
    """Not only its workspace."""
    stage.write("a", 6 * MB)
    other = stage.root / "private" / "a" / "tmp"
    other.mkdir(parents=True)
    with (other / "large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 6 * MB)
    await stage.turn("a")
    assert len(stage.ended) == 1


async def test_on_a_full_disk_the_one_that_fills_it_is_stopped(stage: Stage) -> None:
    """Not the largest, and not one that writes a little."""
    stage.watch._bound = 10_000 * MB
    for name, size in (("large", 90 * MB), ("filling", MB), ("small", MB)):
        stage.write(name, size)
        stage.running.add(name)
    await stage.look()
    stage.write("filling", 60 * MB)
    stage.write("small", 2 * MB)
    stage.space = FreeSpace(40 * MB, 10_000 * MB)
    await stage.watch.look()
    ((name, message),) = stage.ended
    assert name == "filling"
    assert "40,000,000 of 10,000,000,000 bytes free" in message
    await stage.watch.look()
    stage.write("small", 3 * MB)
    await stage.watch.look()
    assert len(stage.ended) == 1
