"""What is left of git when the sidecar is killed in a clone: nothing that the next one does not end."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from sidecar.aiokit import TaskOwner
from sidecar.config import RepositorySettings
from sidecar.managed.workspaces.git import Checkout, CloneError, Git
from sidecar.processes import orphans
from sidecar.processes.orphans import GIT_MARKER_VARIABLE, survivors
from tests.fakes.git_server import GitServer, make_repository
from tests.fakes.small_sidecar import small_settings
from tests.harness import sidecar_for

OWNER = Path(__file__).parents[1] / "fakes" / "clone_owner.py"
NOBODY = "http://127.0.0.1:9"
MARKER = "c" * 32


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    (tmp_path / "host" / "public").mkdir(parents=True)
    make_repository(tmp_path / "host" / "public" / "app.git")
    server = GitServer(tmp_path / "host", token="a token")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def git() -> AsyncIterator[Git]:
    tasks = TaskOwner("test")
    settings = RepositorySettings(clone_timeout_seconds=2.0)
    yield Git(settings=settings, inherited=os.environ, tasks=tasks, marker=MARKER)
    await tasks.close()


async def _killed_in_a_clone(server: GitServer, target: Path) -> list[int]:
    """Have a process killed while its git waits for the host; return what had begun."""
    url = f"{server.url}/silent/app.git"
    owner = await asyncio.create_subprocess_exec(sys.executable, OWNER, url, target, MARKER)
    await server.asked.wait()
    begun = survivors(MARKER, GIT_MARKER_VARIABLE)
    owner.kill()
    await owner.wait()
    return begun


async def test_the_next_start_ends_what_a_killed_sidecar_left(
    server: GitServer, tmp_path: Path
) -> None:
    """git dies with the sidecar; its helpers, which hold the token, are killed at the next start."""
    settings = small_settings(tmp_path, NOBODY)
    marker_file = settings.storage.data_dir / "opencode" / "marker"
    marker_file.parent.mkdir(parents=True)
    marker_file.write_text(MARKER)
    begun = await _killed_in_a_clone(server, tmp_path / "session" / "app")
    assert begun
    leader = min(begun)
    async with asyncio.timeout(5):
        while leader in survivors(MARKER, GIT_MARKER_VARIABLE):
            await asyncio.sleep(0.02)
    async with sidecar_for(settings, is_ready=False):
        assert survivors(MARKER, GIT_MARKER_VARIABLE) == []


async def test_the_next_clone_has_a_directory_of_its_own(
    server: GitServer, git: Git, tmp_path: Path
) -> None:
    """Whatever a leftover still writes is not in it, and the leftover's directory goes."""
    target = tmp_path / "session" / "app"
    await _killed_in_a_clone(server, target)
    (left,) = target.parent.iterdir()
    await git.clone(f"{server.url}/public/app.git", target, checkout=Checkout())
    assert [path.name for path in target.parent.iterdir()] == ["app"]
    assert (target / "README.md").exists()
    assert not left.exists()
    orphans.sweep(MARKER, GIT_MARKER_VARIABLE)


async def test_a_clone_that_is_cut_leaves_no_zombie(
    server: GitServer, git: Git, tmp_path: Path
) -> None:
    """The helpers of a git that was killed become our children, and are reaped."""
    orphans.become_subreaper()
    before = _gits()
    with pytest.raises(CloneError):
        await git.clone(f"{server.url}/silent/app.git", tmp_path / "app", checkout=Checkout())
    assert _gits() - before == set()


def _gits() -> set[psutil.Process]:
    """Return all of git's processes below us, dead ones too; children of other tests come and go."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("git"):
                found.add(process)
    return found
