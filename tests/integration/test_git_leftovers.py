"""What is left of git when the sidecar is killed in a clone: nothing."""

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
from tests.fakes.git_server import GitServer, make_repository
from tests.waiting import until

OWNER = Path(__file__).parents[1] / "fakes" / "clone_owner.py"


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
    yield Git(settings=RepositorySettings(), inherited=os.environ, tasks=tasks)
    await tasks.close()


async def _killed_in_a_clone(server: GitServer, target: Path) -> list[psutil.Process]:
    """Have a process killed while its git waits for the host; return what had begun."""
    url = f"{server.url}/silent/app.git"
    owner = await asyncio.create_subprocess_exec(sys.executable, OWNER, url, target)
    await server.asked.wait()
    begun = psutil.Process(owner.pid).children(recursive=True)
    owner.kill()
    await owner.wait()
    return begun


async def test_a_killed_sidecar_leaves_no_git(server: GitServer, tmp_path: Path) -> None:
    """git and its helpers, which hold the token, die with the sidecar, which had no chance to end them."""
    begun = await _killed_in_a_clone(server, tmp_path / "session" / "app")
    assert len(begun) > 2  # the guard, git, and the helper that talks to the host
    await until(lambda: not any(process.is_running() for process in begun))


async def test_the_next_clone_has_a_directory_of_its_own(
    server: GitServer, git: Git, tmp_path: Path
) -> None:
    """Whatever a leftover still writes is not in it, and the leftover's directory goes."""
    target = tmp_path / "session" / "app"
    # Made by hand: a git that dies by a signal removes its directory itself when it finds the time.
    left = target.parent / ".app.cloning-0badc0de"
    left.mkdir(parents=True)
    (left / "half").write_text("a file that git had not finished")
    await git.clone(f"{server.url}/public/app.git", target, checkout=Checkout())
    assert [path.name for path in target.parent.iterdir()] == ["app"]
    assert (target / "README.md").exists()
    assert not left.exists()


async def test_a_clone_that_is_cut_leaves_no_zombie(server: GitServer, tmp_path: Path) -> None:
    """The helpers of a git that was killed end with it, and are reaped."""
    before = _gits()
    tasks = TaskOwner("test")
    impatient = RepositorySettings(clone_timeout_seconds=2.0)
    git = Git(settings=impatient, inherited=os.environ, tasks=tasks)
    with pytest.raises(CloneError):
        await git.clone(f"{server.url}/silent/app.git", tmp_path / "app", checkout=Checkout())
    await tasks.close()
    await until(lambda: not _gits() - before)


def _gits() -> set[psutil.Process]:
    """Return all of git's processes below us, dead ones too; children of other tests come and go."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("git"):
                found.add(process)
    return found
