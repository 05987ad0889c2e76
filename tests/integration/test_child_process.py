"""Child processes: their lines, their environment, and what they leave behind."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil

from sidecar.processes.process import ChildProcess
from tests.waiting import patience, until


async def test_lines_and_exit_status_arrive(tmp_path: Path) -> None:
    """Every line comes with its stream, unfinished last lines and invalid UTF-8 included, then the status."""
    lines: list[tuple[str, str]] = []
    code = (
        "import sys; sys.stdout.buffer.write(b'one\\ntwo \\xff'); sys.stdout.flush();"
        "sys.stderr.write('x' * 20000 + '\\n'); sys.exit(5)"
    )
    process = await ChildProcess.spawn(
        [sys.executable, "-c", code],
        env={},
        cwd=tmp_path,
        on_line=lambda s, t: lines.append((s, t)),
    )
    assert await process.wait() == 5
    assert [text for stream, text in lines if stream == "stdout"] == ["one", "two \ufffd"]
    assert "".join(text for stream, text in lines if stream == "stderr") == "x" * 20000


async def test_environment_is_exactly_what_was_given(tmp_path: Path) -> None:
    """Nothing of our environment is added."""
    lines: list[str] = []
    process = await ChildProcess.spawn(
        [sys.executable, "-I", "-c", "import os; print(sorted(os.environ))"],
        env={"ONLY": "this", "LC_CTYPE": "C.UTF-8"},
        cwd=tmp_path,
        on_line=lambda _s, text: lines.append(text),
    )
    await process.wait()
    assert lines == ["['LC_CTYPE', 'ONLY']"]


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    """Given up while its guard has not reported yet, the child has no owner: it must not live on."""

    def started() -> list[psutil.Process]:
        below = psutil.Process().children(recursive=True)
        return [p for p in below if str(tmp_path) in " ".join(_command_line(p))]

    for _ in range(3):
        program = [sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path)]
        starting = asyncio.create_task(
            ChildProcess.spawn(program, env={}, cwd=tmp_path, on_line=lambda _s, _t: None)
        )
        await until(lambda: bool(started()))
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await starting).kill()  # it was faster
        await until(lambda: not started())


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


_RUNAWAY = """
import os, signal, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["another name", "600"], {})
    os._exit(0)
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
"""
"""A grandchild without its parents, its session, its name or its environment."""


async def _runaway(tmp_path: Path) -> tuple[ChildProcess, psutil.Process]:
    """Start a command that leaves a grandchild behind, and ends when the file `go` is there; return both."""
    ready = asyncio.Event()
    process = await ChildProcess.spawn(
        [sys.executable, "-c", _RUNAWAY, "go"],
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        on_line=lambda _s, _t: ready.set(),
    )
    async with patience():
        await ready.wait()
        guard = psutil.Process(process.pid).parent()
        assert guard is not None
        while not (left := [p for p in guard.children() if p.pid != process.pid]):
            await asyncio.sleep(0.01)
    return process, left[0]


async def test_what_a_command_leaves_ends_with_it(tmp_path: Path) -> None:
    """Whatever is below it dies when it ends by itself, however it tried to get away."""
    process, left = await _runaway(tmp_path)
    (tmp_path / "go").touch()
    async with patience():
        assert await process.wait() == 0
    assert not left.is_running()


async def test_what_a_command_leaves_is_killed_with_it(tmp_path: Path) -> None:
    """`kill` reaches everything below the command; its own status is that of the signal."""
    process, left = await _runaway(tmp_path)
    process.kill()
    async with patience():
        assert await process.wait() == -signal.SIGKILL
    assert not left.is_running()


async def test_a_killed_guard_takes_the_command_along(tmp_path: Path) -> None:
    """When the guard itself is killed, the command dies with it."""
    process, left = await _runaway(tmp_path)
    command = psutil.Process(process.pid)
    command.parent().kill()  # type: ignore[union-attr]
    async with patience():
        assert await process.wait() == -signal.SIGKILL
        while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    left.kill()
