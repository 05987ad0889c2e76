"""What a session started ends with it, on every occasion, however it was started; and nothing else does.

The process that is left behind has another session id, another parent, another name and no environment.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from tests.confined import UID, Installation, Sessions, confined
from tests.harness import user_message
from tests.waiting import PATIENCE_SECONDS, until

_MARKS = itertools.count(10**9 + os.getpid() * 1000)
CONFINED = {"SIDECAR_CONFINEMENT": "required"}


@pytest.fixture(scope="module")
async def sessions(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sessions]:
    """A sidecar whose sessions come and go."""
    data_dir = tmp_path_factory.getbasetemp() / f"ends-{installation.is_other_user}"
    async with confined(installation, data_dir, **CONFINED) as made:
        yield made


def escape(mark: int) -> str:
    """Return a command that leaves a process behind: a sleep of that many seconds, by which it is found."""
    orphan = f"(exec -a kworker sleep {mark} </dev/null >/dev/null 2>&1 &)"
    return f"setsid env -i /bin/bash -c '{orphan}'"


def is_alive(mark: int) -> bool:
    """Whether the process with that mark runs."""
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["cmdline"] == ["kworker", str(mark)]:
            return bool(process.info["status"] != psutil.STATUS_ZOMBIE)
    return False


async def leave_behind(sessions: Sessions, session_id: str) -> int:
    """Have the session leave a process behind; return its mark."""
    mark = next(_MARKS)
    await sessions.bash(session_id, f"{escape(mark)}; echo left")
    await until(lambda: is_alive(mark))
    return mark


async def delete(sessions: Sessions, session_id: str) -> None:
    """Delete the session."""
    async with sessions.http.delete(f"/v1/sessions/{session_id}") as answer:
        assert answer.status == 200


async def archive(sessions: Sessions, session_id: str) -> None:
    """Archive the session."""
    await sessions.post(f"/v1/sessions/{session_id}/archive", {})


@pytest.mark.parametrize("end", [delete, archive])
async def test_with_the_session(
    sessions: Sessions, end: Callable[[Sessions, str], Awaitable[None]]
) -> None:
    """When it is deleted or archived; what other sessions left behind goes on."""
    session, other = await sessions.session(), await sessions.session()
    mark, others = await leave_behind(sessions, session), await leave_behind(sessions, other)
    await end(sessions, session)
    await until(lambda: not is_alive(mark))
    assert is_alive(others)


async def test_with_an_interrupt(sessions: Sessions) -> None:
    """Also what an earlier turn left behind."""
    session = await sessions.session()
    earlier, mark = await leave_behind(sessions, session), next(_MARKS)
    path = f"/v1/sessions/{session}/events"
    running = user_message(f"[[bash: {escape(mark)}; sleep 600]]")
    await sessions.post(path, {"events": [running]})
    await until(lambda: is_alive(mark))
    assert is_alive(earlier), "a new turn ends nothing"
    await sessions.post(path, {"events": [{"type": "user.interrupt"}]})
    await until(lambda: not is_alive(mark) and not is_alive(earlier))
    await sessions.idle(session)
    await sessions.post(path, {"events": [user_message("[[bash: touch fine]]")]})
    await until((sessions.workspace(session) / "fine").exists)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_with_opencode(sessions: Sessions, number: signal.Signals) -> None:
    """Whether it ends by itself or is killed; the next opencode goes on without it."""
    session = await sessions.session()
    mark = await leave_behind(sessions, session)
    boots = len(sessions.process.entries("child ready"))
    os.kill(sessions.process.entries("child started")[-1]["pid"], number)
    await until(lambda: not is_alive(mark))
    await sessions.process.logged("child ready", count=boots + 1, seconds=120)
    assert "fine" in await sessions.bash(session, "echo fine")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_with_the_sidecar(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory, number: signal.Signals
) -> None:
    """Stopped or killed; its next start finds the session, and nothing that runs."""
    data_dir = tmp_path_factory.getbasetemp() / f"stop-{number}-{installation.is_other_user}"
    async with confined(installation, data_dir, **CONFINED) as sessions:
        session = await sessions.session()
        mark = await leave_behind(sessions, session)
        family = psutil.Process(sessions.process.process.pid).children(recursive=True)
        sessions.process.send(number)
        await sessions.process.ended()
        await until(lambda: not is_alive(mark))
        _, alive = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
        assert not alive
    async with confined(installation, data_dir, **CONFINED) as sessions:
        assert "fine" in await sessions.bash(session, "echo fine")


async def test_a_copied_data_directory_harms_nothing(
    installation: Installation, sessions: Sessions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A sidecar on a copy, which deletes the same session and is killed, ends nothing of the original's."""
    session = await sessions.session()
    mark = await leave_behind(sessions, session)
    copy = tmp_path_factory.getbasetemp() / f"copy-{installation.is_other_user}"
    shutil.copytree(sessions.data_dir, copy, symlinks=True, ignore=_sockets)
    if installation.is_other_user:
        for path in (copy, *copy.rglob("*")):
            os.chown(path, UID, UID, follow_symlinks=False)
    boots = len(sessions.process.entries("child started"))
    async with confined(installation, copy, **CONFINED) as second:
        assert str(copy) in await second.bash(session, "pwd; touch copied")
        assert (second.workspace(session) / "copied").exists()
        assert not (sessions.workspace(session) / "copied").exists()
        copied = await leave_behind(second, session)
        await delete(second, session)
        await until(lambda: not is_alive(copied))
        second.process.send(signal.SIGKILL)
        await second.process.ended()
    assert is_alive(mark)
    assert len(sessions.process.entries("child started")) == boots
    assert "fine" in await sessions.bash(session, "echo fine")


def _sockets(folder: str, names: list[str]) -> list[str]:
    """Return what cannot be copied."""
    return [name for name in names if Path(folder, name).is_socket()]
