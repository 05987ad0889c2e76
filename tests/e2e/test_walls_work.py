"""Ordinary work inside the walls: what agents do all day still works, and what does not fails clearly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.confined import Installation, Sessions, confined


@pytest.fixture(scope="module")
async def sessions(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sessions]:
    """A sidecar behind walls, for each user, with this machine's tools on PATH."""
    data_dir = tmp_path_factory.getbasetemp() / f"work-{installation.is_other_user}"
    tools = {str(installation.python.parent)}
    if not installation.is_other_user:
        tools |= {str(Path(found).parent) for n in ("node", "npm") if (found := shutil.which(n))}
    path = ":".join([*sorted(tools), "/usr/local/bin", "/usr/bin", "/bin"])
    limits = {
        "SIDECAR_CONFINEMENT_MAX_USER_PROCESSES": "3000"
    }  # the machine has other tests to run
    limits["SIDECAR_CONFINEMENT"] = "required"
    async with confined(installation, data_dir, PATH=path, **limits) as made:
        yield made


async def ok(sessions: Sessions, script: str, expected: str) -> None:
    """Run a script in a new session; its last line must be the expected one."""
    session = await sessions.session()
    said = await sessions.bash(session, f"set -e; {script}", seconds=300)
    assert said.strip().splitlines()[-1:] == [expected], said


async def test_git(sessions: Sessions) -> None:
    """Commit, clone, worktrees, hooks, and a global configuration that is the session's own."""
    await ok(
        sessions,
        "git init -q a && cd a && git config --global user.email a@b && git config --global user.name n "
        "&& echo 1 > f && git add f && git commit -qm one && git worktree add -q ../w -b other "
        "&& cd .. && git clone -q a b && cd b && git log --format=%s && cd ../w && git branch --show-current",
        "other",
    )


async def test_python_packages(sessions: Sessions) -> None:
    """A virtual environment with pip in it, in the workspace."""
    await ok(
        sessions,
        "python3 -m venv v && v/bin/pip --version >/dev/null && v/bin/python -c 'print(6*7)'",
        "42",
    )


async def test_node_packages(sessions: Sessions) -> None:
    """npm installs a package, with its links, from the workspace."""
    await ok(
        sessions,
        'mkdir p && cd p && echo \'{"name":"p","version":"1.0.0","bin":"x.js"}\' > package.json '
        "&& echo 'console.log(7)' > x.js && mkdir ../app && cd ../app && npm init -y >/dev/null "
        "&& npm install --no-audit --no-fund ../p >/dev/null && node node_modules/p/x.js",
        "7",
    )


async def test_compilers(sessions: Sessions) -> None:
    """cc builds and runs a program."""
    await ok(
        sessions,
        "printf 'int puts(const char*);int main(){puts(\"built\");}' > a.c && cc -o a a.c && ./a",
        "built",
    )


async def test_shell_plumbing(sessions: Sessions) -> None:
    """Here-documents, pipes, process substitution, background jobs, /dev/null, files made and moved."""
    await ok(
        sessions,
        "cat > f << E\nb\na\nE\nsort f | diff - <(printf 'a\\nb\\n') && mkdir -p d/e && mv f d/e/g "
        "&& (sleep 0.1; echo late > /dev/null) & wait; ln -s d/e/g s && head -n1 s",
        "b",
    )


async def test_temporary_files(sessions: Sessions) -> None:
    """mktemp and TMPDIR are the session's own, kept between its commands, and no other session sees them."""
    session, other = await sessions.session(), await sessions.session()
    made = (await sessions.bash(session, "f=$(mktemp) && echo kept > $f && echo $f")).strip()
    assert await sessions.bash(session, f"cat {made}") == "kept\n"
    assert await sessions.tool(session, "read", filePath=made)
    assert "kept" not in await sessions.bash(other, f"cat {made}; true")


async def test_a_shared_tmp_is_refused(sessions: Sessions) -> None:
    """/tmp itself is shared by all sessions, so none may use it: the error says so."""
    said = await sessions.bash(await sessions.session(), "sh -c 'echo x > /tmp/of-all' 2>&1; true")
    assert "Permission denied" in said
    assert not Path("/tmp/of-all").exists()


async def test_background_servers(sessions: Sessions) -> None:
    """One command starts a server, the next one uses it, a third one ends it by name."""
    session = await sessions.session()
    start = (
        "(python3 -m http.server 0 --bind 127.0.0.1 > log 2>&1 &); "
        "until grep -q port log; do sleep 0.1; done"
    )
    await sessions.bash(session, f"export PYTHONUNBUFFERED=1; echo page > index.html; {start}")
    fetch = (
        "port=$(grep -o 'port [0-9]*' log | cut -d' ' -f2); "
        "python3 -c \"import urllib.request as u;print(u.urlopen('http://127.0.0.1:$port/').read().decode())\""
    )
    assert "page" in await sessions.bash(session, fetch)
    end = (
        "for p in /proc/[0-9]*; do grep -q http.server $p/cmdline && kill ${p#/proc/}; done 2>/dev/null; "
        "sleep 0.2; grep -c http.server /proc/[0-9]*/cmdline 2>/dev/null | grep -vc :0; true"
    )
    await sessions.bash(session, end)
    assert "page" not in await sessions.bash(session, fetch)


async def test_a_command_that_ends_by_a_signal(sessions: Sessions) -> None:
    """Its result comes at once, as an error with a shell's status, not at the command's time limit."""
    turn = await sessions.turn(await sessions.session(), "[[bash: echo begun; kill -9 $$]]")
    (result,) = [event for event in turn if event["type"] == "agent.tool_result"]
    said = result["content"][0]["text"]
    assert result["is_error"]
    assert "begun" in said
    assert "137" in said
    assert "timeout" not in said


async def test_search(sessions: Sessions) -> None:
    """opencode's own grep, glob and read work in the session's directory."""
    session = await sessions.session()
    await sessions.bash(session, "mkdir src && echo needle > src/hay.txt")
    assert "hay.txt" in await sessions.tool(session, "grep", pattern="needle")
    assert "hay.txt" in await sessions.tool(session, "glob", pattern="**/*.txt")
    path = sessions.workspace(session) / "src" / "hay.txt"
    assert "needle" in await sessions.tool(session, "read", filePath=str(path))


async def test_long_output_can_be_read_again(sessions: Sessions) -> None:
    """Where opencode saves what it cut off is a file that the session can read."""
    session = await sessions.session()
    # opencode 1.18.33 stops reading at the exit; the launcher exits when all was read.
    said = await sessions.bash(session, "seq 100000; sleep 3")
    saved = said.split("saved to: ")[1].split()[0]
    assert "100000" in await sessions.bash(session, f"tail -n1 {saved}")


@pytest.mark.alone
async def test_limits(sessions: Sessions, installation: Installation) -> None:
    """A fork bomb is stopped; another session goes on, and so does this one.

    As root the kernel counts no processes, and a real bomb is faster than the keeper that does: there the
    bomb is a bounded one.
    """
    session, other = await sessions.session(), await sessions.session()
    is_counted = installation.is_other_user
    bomb = "b() { b | b & }; b" if is_counted else "for i in $(seq 2000); do sleep 60 & done"
    await sessions.bash(session, f"{bomb}; sleep 30", seconds=300)
    assert "fine" in await sessions.bash(other, "echo fine")
    assert "fine" in await sessions.bash(session, "echo fine")


def test_the_compiler_of_the_launcher_is_here() -> None:
    """What builds the launcher on this machine is what `make setup` asks for."""
    assert subprocess.run(["cc", "--version"], capture_output=True, check=True).stdout
    assert sys.platform == "linux"
