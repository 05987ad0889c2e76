"""Repositories: real git against a real git host over HTTP, with good and bad tokens."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar.aiokit import TaskOwner
from sidecar.config import RepositorySettings
from sidecar.errors import InvalidRequestError
from sidecar.ids import new_id
from sidecar.managed.turns.failures import Failure
from sidecar.managed.vaults.encryption import open_secret_box
from sidecar.managed.workspaces.git import Checkout, CloneError, Git
from sidecar.managed.workspaces.repositories import Plan, Repositories, staging_of
from sidecar.store.interface import Store
from sidecar.wire.sessions import GithubRepository
from tests.fakes.git_server import GitServer, git, make_repository

TOKEN = "ghp_the-token-of-the-tests"


@dataclass
class Bench:
    """A store, a git host with one repository in each room, and one session."""

    database: Store
    server: GitServer
    directory: Path
    commits: dict[str, str]
    tasks: TaskOwner
    data_dir: Path
    session_id: str = field(default_factory=lambda: new_id("sesn"))

    async def repositories(self, **settings: Any) -> Repositories:
        """Return repositories with these settings."""
        secret_box = await open_secret_box(database=self.database, key=None, data_dir=self.data_dir)
        bounds = RepositorySettings(**settings)
        runner = Git(settings=bounds, inherited=os.environ, tasks=self.tasks)
        return Repositories(database=self.database, secret_box=secret_box, git=runner)

    async def store(self, repositories: Repositories, *wanted: dict[str, Any]) -> Plan:
        """Store the session's resources as session create does."""
        parsed = [
            GithubRepository.model_validate({"type": "github_repository", **item})
            for item in wanted
        ]
        plan = repositories.plan(parsed)

        def insert(connection: Any) -> None:
            connection.execute(
                "INSERT INTO sessions (id, agent_id, agent_version, environment_id, "
                "thread_id, model_ref, status, created_at, updated_at, body) "
                "VALUES (?, 'a', 1, 'e', 't', 'm', 'idle', '', '', '{}') ON CONFLICT DO NOTHING",
                (self.session_id,),
            )
            plan.insert(connection, self.session_id)

        await self.database.write(insert)
        return plan

    async def clone(self, wanted: dict[str, Any], **settings: Any) -> list[Failure]:
        """Store one resource and materialise it."""
        repositories = await self.repositories(**settings)
        await self.store(repositories, wanted)
        return await repositories.materialise(self.session_id, self.directory)


@pytest.fixture
async def bench(database: Store, tmp_path: Path) -> AsyncIterator[Bench]:
    """Everything, and nothing left behind."""
    commits = {}
    for room in ("public", "private"):
        (tmp_path / "host" / room).mkdir(parents=True)
        commits = make_repository(tmp_path / "host" / room / "app.git")
    server = GitServer(tmp_path / "host", token=TOKEN)
    await server.start()
    (tmp_path / "data").mkdir()
    directory = tmp_path / "session"
    directory.mkdir()
    tasks = TaskOwner("test")
    yield Bench(database, server, directory, commits, tasks, tmp_path / "data")
    await tasks.close()
    await server.close()


def files_below(directory: Path) -> bytes:
    """Everything in all files of a directory."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_a_public_repository_is_cloned_below_the_session(bench: Bench) -> None:
    """Without a mount path the repository's name is its directory; the default branch is out."""
    assert await bench.clone({"url": f"{bench.server.url}/public/app.git"}) == []
    assert (bench.directory / "app" / "README.md").read_text() == "branch main\n"
    assert git("status", "--porcelain", cwd=bench.directory / "app") == ""
    assert [path.name for path in bench.directory.iterdir()] == ["app"]


@pytest.mark.parametrize(
    ("mount_path", "expected"),
    [("/workspace/src/it", "src/it"), ("/srv/code", "srv/code"), ("/workspace/app/", "app")],
)
async def test_mount_paths_are_below_the_session(
    bench: Bench, mount_path: str, expected: str
) -> None:
    """`/workspace` is the session's directory; other absolute paths are kept below it."""
    wanted = {"url": f"{bench.server.url}/public/app.git", "mount_path": mount_path}
    assert await bench.clone(wanted) == []
    assert (bench.directory / expected / "README.md").exists()


async def test_a_branch_or_a_commit_is_checked_out(bench: Bench) -> None:
    """`checkout` names the branch or the commit of the working copy."""
    url = f"{bench.server.url}/public/app.git"
    repositories = await bench.repositories()
    await bench.store(
        repositories,
        {"url": url, "mount_path": "/workspace/b", "checkout": {"type": "branch", "name": "side"}},
        {
            "url": url,
            "mount_path": "/workspace/c",
            "checkout": {"type": "commit", "sha": bench.commits["side"]},
        },
    )
    assert await repositories.materialise(bench.session_id, bench.directory) == []
    assert git("branch", "--show-current", cwd=bench.directory / "b") == "side"
    assert git("rev-parse", "HEAD", cwd=bench.directory / "c") == bench.commits["side"]


async def test_a_token_opens_a_private_repository_and_leaves_no_trace(bench: Bench) -> None:
    """The host gets the token; neither the clone, the answer nor the store has it in clear."""
    url = f"{bench.server.url}/private/app.git"
    repositories = await bench.repositories()
    plan = await bench.store(repositories, {"url": url, "authorization_token": TOKEN})
    assert await repositories.materialise(bench.session_id, bench.directory) == []
    assert any(sent.startswith("Basic ") for sent in bench.server.authorizations)
    assert git("remote", "get-url", "origin", cwd=bench.directory / "app") == url
    encoded = next(s for s in bench.server.authorizations if s).removeprefix("Basic ")
    for needle in (TOKEN, encoded):
        assert needle.encode() not in files_below(bench.directory)
        assert needle not in json.dumps(plan.answers)
        assert needle.encode() not in files_below(bench.data_dir)


@pytest.mark.parametrize(
    ("path", "token", "checkout", "expected"),
    [
        ("private/app.git", None, None, "repository_authentication_error"),
        ("private/app.git", "wrong-token", None, "repository_authentication_error"),
        ("forbidden/app.git", TOKEN, None, "repository_forbidden_error"),
        ("public/none.git", None, None, "repository_not_found_error"),
        (
            "public/app.git",
            None,
            {"type": "branch", "name": "no-such"},
            "repository_checkout_error",
        ),
        ("public/app.git", None, {"type": "commit", "sha": "0" * 40}, "repository_checkout_error"),
    ],
)
async def test_each_failure_has_its_type(
    bench: Bench,
    path: str,
    token: str | None,
    checkout: dict[str, str] | None,
    expected: str,
) -> None:
    """What the host answers decides the type; the message names the URL and never the token."""
    url = f"{bench.server.url}/{path}"
    failures = await bench.clone({"url": url, "authorization_token": token, "checkout": checkout})
    assert [failure.type for failure in failures] == [expected]
    error = failures[0].draft().fields["error"]
    assert error["repository_url"] == url
    assert error["retry_status"] == {"type": "exhausted"}
    assert token is None or token not in json.dumps(error)
    assert list(bench.directory.iterdir()) == []


async def test_an_unreachable_host_is_a_clone_error(bench: Bench) -> None:
    """Nothing listens there: the general type."""
    failures = await bench.clone({"url": "http://127.0.0.1:9/x/app.git"})
    assert [failure.type for failure in failures] == ["repository_clone_error"]


async def test_a_silent_host_is_bounded(bench: Bench) -> None:
    """A clone ends at its time limit, and nothing of it is left."""
    url = f"{bench.server.url}/silent/app.git"
    failures = await bench.clone({"url": url}, clone_timeout_seconds=1.0)
    assert [failure.type for failure in failures] == ["repository_clone_error"]
    assert "more than 1 s" in failures[0].message
    assert list(bench.directory.iterdir()) == []


async def test_a_large_repository_is_refused(bench: Bench) -> None:
    """A clone above the size limit is removed again."""
    url = f"{bench.server.url}/public/app.git"
    failures = await bench.clone({"url": url}, max_bytes=1024)
    assert [failure.type for failure in failures] == ["repository_clone_error"]
    assert "larger than 1024 bytes" in failures[0].message
    assert list(bench.directory.iterdir()) == []


async def test_a_cancelled_clone_leaves_nothing(bench: Bench) -> None:
    """An interrupt during a clone ends git and removes what it wrote."""
    repositories = await bench.repositories()
    await bench.store(repositories, {"url": f"{bench.server.url}/silent/app.git"})
    cloning = asyncio.create_task(repositories.materialise(bench.session_id, bench.directory))
    await bench.server.asked.wait()
    cloning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cloning
    assert list(bench.directory.iterdir()) == []


async def test_a_clone_happens_once(bench: Bench) -> None:
    """What the agent did to its copy, even deleting it, is not undone by the next turn."""
    repositories = await bench.repositories()
    await bench.store(repositories, {"url": f"{bench.server.url}/public/app.git"})
    assert await repositories.materialise(bench.session_id, bench.directory) == []
    (bench.directory / "app" / "README.md").write_text("changed by the agent\n")
    asked = len(bench.server.authorizations)
    assert await repositories.materialise(bench.session_id, bench.directory) == []
    assert (bench.directory / "app" / "README.md").read_text() == "changed by the agent\n"
    assert len(bench.server.authorizations) == asked


async def test_a_failed_clone_is_tried_again(bench: Bench) -> None:
    """After a failure the next turn clones, for example because the repository is there now."""
    repositories = await bench.repositories()
    await bench.store(repositories, {"url": f"{bench.server.url}/public/later.git"})
    first = await repositories.materialise(bench.session_id, bench.directory)
    assert [failure.type for failure in first] == ["repository_not_found_error"]
    make_repository(bench.data_dir.parent / "host" / "public" / "later.git")
    assert await repositories.materialise(bench.session_id, bench.directory) == []
    assert (bench.directory / "later" / "README.md").exists()


async def test_files_of_the_agent_are_never_overwritten(bench: Bench) -> None:
    """A mount path that holds something already, or leads out by a link, is refused."""
    repositories = await bench.repositories()
    url = f"{bench.server.url}/public/app.git"
    await bench.store(
        repositories,
        {"url": url, "mount_path": "/workspace/full"},
        {"url": url, "mount_path": "/workspace/link/app"},
    )
    (bench.directory / "full").mkdir()
    (bench.directory / "full" / "work").write_text("mine")
    (bench.directory / "link").symlink_to(bench.data_dir)
    failures = await repositories.materialise(bench.session_id, bench.directory)
    assert [failure.type for failure in failures] == ["repository_clone_error"] * 2
    assert (bench.directory / "full" / "work").read_text() == "mine"
    assert not (bench.data_dir / "app").exists()


@pytest.mark.parametrize("what", ["link", "files", "file"])
async def test_what_an_agent_does_while_git_works_leads_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A process of an earlier turn may be at work: the clone is made elsewhere and moved through no link."""
    repositories = await bench.repositories()
    url = f"{bench.server.url}/public/app.git"
    await bench.store(repositories, {"url": url, "mount_path": "/workspace/libs/app"})
    clone = repositories._git.clone

    async def clone_meanwhile(url: str, target: Path, **options: Any) -> None:
        assert not target.is_relative_to(bench.directory)
        await clone(url, target, **options)
        place = bench.directory / "libs"
        if what == "link":
            place.symlink_to(bench.data_dir)
        elif what == "file":
            place.write_text("mine")
        else:
            (place / "app").mkdir(parents=True)
            (place / "app" / "work").write_text("mine")

    monkeypatch.setattr(repositories._git, "clone", clone_meanwhile)
    (failure,) = await repositories.materialise(bench.session_id, bench.directory)
    assert failure.type == "repository_clone_error"
    assert ("other files" if what == "files" else "no directory") in failure.message
    assert not (bench.data_dir / "app").exists()
    assert not list(bench.directory.rglob("README.md"))
    assert not staging_of(bench.directory).exists()


async def test_a_hook_of_the_user_does_not_run(bench: Bench, tmp_path: Path) -> None:
    """The machine's own git configuration has no say: git sees none of our environment."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    secret_box = await open_secret_box(database=bench.database, key=None, data_dir=bench.data_dir)
    hostile = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(hooks),
        "GIT_TRACE": str(tmp_path / "trace"),
    }
    runner = Git(settings=RepositorySettings(), inherited=hostile, tasks=bench.tasks)
    repositories = Repositories(database=bench.database, secret_box=secret_box, git=runner)
    await bench.store(repositories, {"url": f"{bench.server.url}/public/app.git"})
    assert await repositories.materialise(bench.session_id, bench.directory) == []
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "trace").exists()


def make_hostile_repository(root: Path, ran: Path) -> None:
    """Make a bare repository that has in it whatever could make a git run a program: `ran` would appear."""
    make_repository(root)
    work = root.with_suffix(".work")
    program = work / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(0o755)
    (work / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    modules = "".join(
        f'[submodule "s{number}"]\n path = s{number}\n url = {url}\n update = !touch {ran}\n'
        for number, url in enumerate((f"ext::sh -c touch%20{ran}", f"file://{root}", "-u./program"))
    )
    (work / ".gitmodules").write_text(modules)
    (work / ".gitconfig").write_text(f"[core]\n fsmonitor = {program}\n hooksPath = hooks\n")
    (work / "hooks").mkdir()
    shutil.copy(program, work / "hooks" / "post-checkout")
    git("add", ".", cwd=work)
    head = git("rev-parse", "HEAD", cwd=work)
    for number in range(3):
        git("update-index", "--add", "--cacheinfo", f"160000,{head},s{number}", cwd=work)
    git("commit", "--quiet", "-m", "hostile", cwd=work)
    git("push", "--quiet", str(root), "HEAD:main", cwd=work)


async def test_nothing_in_a_repository_runs(bench: Bench, tmp_path: Path) -> None:
    """Filters, hooks, monitors, submodules: also where the configuration of the machine would allow them."""
    ran = tmp_path / "ran"
    make_hostile_repository(tmp_path / "host" / "public" / "hostile.git", ran)
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    config = (
        f'[filter "evil"]\n smudge = sh -c "touch {ran}; cat"\n process = sh -c "touch {ran}"\n'
        f'[submodule]\n recurse = true\n[protocol "ext"]\n allow = always\n'
        f'[protocol "file"]\n allow = always\n[core]\n fsmonitor = touch {ran}\n askPass = touch {ran}\n'
        f'[credential]\n helper = "!touch {ran}; true"\n'
        f'[includeIf "gitdir:/"]\n path = {home}/.config/git/config\n'
    )
    for file in (home / ".gitconfig", home / ".config" / "git" / "config"):
        file.write_text(config)
    hostile = {
        **os.environ,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_SYSTEM": str(home / ".gitconfig"),
        "GIT_CONFIG_PARAMETERS": "'submodule.recurse'='true'",
        "GIT_ALLOW_PROTOCOL": "ext:file:http",
        "GIT_ASKPASS": f"touch {ran}",
        "GIT_SSH_COMMAND": f"touch {ran}",
        "GIT_EXEC_PATH": str(home),
    }
    runner = Git(settings=RepositorySettings(), inherited=hostile, tasks=bench.tasks)
    url = f"{bench.server.url}/public/hostile.git"
    head = git("rev-parse", "main", cwd=tmp_path / "host" / "public" / "hostile.git")
    for number, checkout in enumerate((Checkout(), Checkout("main"), Checkout(commit=head))):
        made = bench.directory / str(number)
        await runner.clone(url, made, checkout=checkout)
        assert (made / "program").read_text().endswith("cat\n"), "unchanged by any filter"
        assert not list((made / "s0").iterdir()), "no submodule is fetched"
    url = f"{bench.server.url}/private/app.git"
    with pytest.raises(CloneError):
        await runner.clone(url, bench.directory / "private", checkout=Checkout())
    assert not ran.exists()


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch%20{ran}",
        "file://{host}/public/app.git",
        "{host}/public/app.git",
        "ssh://-oProxyCommand=touch${{IFS}}{ran}/x",
        "git://127.0.0.1/app",
        "--upload-pack=touch {ran}",
        "fd::7",
    ],
)
async def test_only_http_is_spoken(bench: Bench, tmp_path: Path, url: str) -> None:
    """Whatever address reaches git: nothing else is fetched, and no program started for it."""
    ran = tmp_path / "ran"
    runner = Git(settings=RepositorySettings(), inherited=os.environ, tasks=bench.tasks)
    given = url.format(ran=ran, host=tmp_path / "host")
    with pytest.raises(CloneError):
        await runner.clone(given, bench.directory / "made", checkout=Checkout())
    assert not ran.exists()
    assert not list(bench.directory.iterdir())


@pytest.mark.parametrize(
    "wanted",
    [
        [{"url": "https://host/app", "mount_path": "/workspace"}],
        [{"url": "https://host/app", "mount_path": "/workspace/../x"}],
        [{"url": "https://host/app", "mount_path": "/workspace/x/.git"}],
        [{"url": "https://host/app", "mount_path": "/workspace//x"}],
        [{"url": "https://host/a/app"}, {"url": "https://host/b/app.git"}],
        [
            {"url": "https://host/a", "mount_path": "/workspace/x"},
            {"url": "https://host/b", "mount_path": "/workspace/x/y"},
        ],
    ],
)
async def test_bad_resources_are_refused(bench: Bench, wanted: list[dict[str, Any]]) -> None:
    """Mount paths that leave the session or collide, answer 400."""
    repositories = await bench.repositories()
    with pytest.raises(InvalidRequestError) as caught:
        await bench.store(repositories, *wanted)
    assert caught.value.field == "resources"
