"""Child processes and their supervision, with small programs as children."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest
from structlog.testing import capture_logs

from sidecar.config import ChildSettings
from sidecar.errors import ChildUnavailableError
from sidecar.opencode.boot import Boot
from sidecar.opencode.child import State
from sidecar.opencode.client import ChildClient
from sidecar.opencode.environment import PINNED_VERSION, ChildFiles, RelayAccess
from sidecar.opencode.pulse import OVERWORKED, SILENT
from sidecar.opencode.supervisor import Supervisor
from sidecar.processes.process import ChildProcess
from tests.fakes.small_sidecar import fake_child
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, patience, until


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Stage:
    """A supervisor over one of the fakes, with the states it went through."""

    def __init__(
        self, root: Path, session: aiohttp.ClientSession, program: str, **settings: object
    ):
        launcher = fake_child(root, program)
        values = {
            "binary": launcher,
            "restart_first_delay_seconds": 0.05,
            "health_interval_seconds": 0.1,
            "health_timeout_seconds": PATIENCE_SECONDS,
        }
        self.files = ChildFiles(root / "opencode")
        self.busy: set[int] = set()
        """The boots with turns, and those with turns that only wait for their client."""
        self.waiting: set[int] = set()
        self.asked_with_waiting: list[bool] = []
        self.launcher = launcher
        self.states: list[State] = []
        self.supervisor = Supervisor(
            settings=ChildSettings(**(values | settings)),  # type: ignore[arg-type]  # test values
            files=self.files,
            session=session,
            relay=lambda: RelayAccess("http://127.0.0.1:9/v1", "token"),
            inherited=os.environ,
            is_busy=self._is_busy,
        )
        self.supervisor.on_state_change(lambda state, _boot: self.states.append(state))

    async def _is_busy(self, boot: Boot, *, with_waiting: bool) -> bool:
        if self.asked_with_waiting[-1:] != [with_waiting]:
            self.asked_with_waiting.append(with_waiting)
        return boot.number in self.busy or (with_waiting and boot.number in self.waiting)

    async def until(self, state: State, boot: int | None = None) -> None:
        """Wait for a state, of a certain boot if given."""
        s = self.supervisor
        await until(lambda: s.state == state and boot in (None, s.boot))


Stages = Callable[..., Stage]


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Stages]:
    """Make supervisors that are stopped after the test, their processes swept."""
    made: list[Stage] = []
    async with aiohttp.ClientSession() as session:

        def make(program: str, **settings: object) -> Stage:
            made.append(Stage(tmp_path, session, program, **settings))
            return made[-1]

        yield make
        for stage in made:
            await stage.supervisor.stop()
            assert stage.supervisor.state in ("stopped", "failed")


async def _tell(client: ChildClient, what: str) -> None:
    with contextlib.suppress(aiohttp.ClientError):
        (await client.forward("POST", f"/test/{what}")).close()


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
time.sleep(float(sys.argv[1]))
"""
"""A grandchild without its parents, its session, its name or its environment."""


async def _runaway(tmp_path: Path, seconds: float) -> tuple[ChildProcess, psutil.Process]:
    """Start a command that leaves a grandchild behind; return both."""
    ready = asyncio.Event()
    process = await ChildProcess.spawn(
        [sys.executable, "-c", _RUNAWAY, str(seconds)],
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
    process, left = await _runaway(tmp_path, 0.5)
    async with patience():
        assert await process.wait() == 0
    assert not left.is_running()


async def test_what_a_command_leaves_is_killed_with_it(tmp_path: Path) -> None:
    """`kill` reaches everything below the command; its own status is that of the signal."""
    process, left = await _runaway(tmp_path, 600)
    process.kill()
    async with patience():
        assert await process.wait() == -signal.SIGKILL
    assert not left.is_running()


async def test_a_killed_guard_takes_the_command_along(tmp_path: Path) -> None:
    """When the guard itself is killed, the command dies with it."""
    process, left = await _runaway(tmp_path, 600)
    command = psutil.Process(process.pid)
    command.parent().kill()  # type: ignore[union-attr]
    async with patience():
        assert await process.wait() == -signal.SIGKILL
        while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    left.kill()


async def test_start_to_stop(stages: Stages) -> None:
    """A healthy child goes stopped, starting, ready, stopping, stopped; stop disposes first.

    It is of another version than the tested one, which is said.
    """
    stage = stages("child_healthy.py")
    with capture_logs() as logs:
        await stage.supervisor.start()
        client = await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    assert (stage.supervisor.boot, stage.supervisor.restarts) == (1, 0)
    assert stage.supervisor.version == "fake"
    (warning,) = [entry for entry in logs if "not of the tested version" in entry["event"]]
    assert (warning["version"], warning["tested"]) == ("fake", PINNED_VERSION)
    pid = stage.supervisor.pid
    assert pid is not None
    assert client is stage.supervisor.client
    await stage.supervisor.stop()
    assert stage.states == ["starting", "ready", "stopping", "stopped"]
    assert _is_gone(pid)
    with pytest.raises(ChildUnavailableError):
        await stage.supervisor.wait_ready(1)


async def test_crash_is_followed_by_a_new_boot(stages: Stages) -> None:
    """A child that dies is replaced after a delay; there is no client in between, and the exit is
    on record."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    client = await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    await _tell(client, "exit")
    await stage.until("ready", boot=2)
    assert stage.states == ["starting", "ready", "backing_off", "starting", "ready"]
    assert stage.supervisor.restarts == 1
    assert stage.supervisor.last_exit is not None
    assert (stage.supervisor.last_exit.code, stage.supervisor.last_exit.reason) == (7, "exited")
    assert stage.supervisor.client is not client


async def test_wait_ready_spans_the_crashes(stages: Stages) -> None:
    """A prompt that waits gets the client of the first boot that works."""
    stage = stages("child_recovers.py")
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    assert stage.supervisor.boot == 3
    assert not stage.supervisor.failed.is_set()


async def test_crash_loop_fails_visibly(stages: Stages) -> None:
    """After the limit of crashes the state is failed, with the child's last words, and nobody waits
    any more."""
    stage = stages("child_crasher.py", crash_loop_limit=3)
    await stage.supervisor.start()
    async with patience():
        await stage.supervisor.failed.wait()
    assert stage.supervisor.state == "failed"
    assert stage.supervisor.boot == 3
    assert "no room for me" in stage.supervisor.failure
    async with patience():
        with pytest.raises(ChildUnavailableError, match="no room for me"):
            await stage.supervisor.wait_ready(10 * PATIENCE_SECONDS)


async def test_missing_binary_fails_at_once(stages: Stages, tmp_path: Path) -> None:
    """A missing executable is no crash loop but one sentence."""
    stage = stages("child_healthy.py", binary=tmp_path / "nothing")
    await stage.supervisor.start()
    async with patience():
        await stage.supervisor.failed.wait()
    assert stage.supervisor.boot == 0
    assert "SIDECAR_CHILD_BINARY" in stage.supervisor.failure


async def test_a_child_that_never_listens_is_killed(stages: Stages) -> None:
    """The start time-out ends a child that ignores SIGTERM, and counts as a crash."""
    stage = stages("child_never_ready.py", start_timeout_seconds=2.0, crash_loop_limit=1)
    await stage.supervisor.start()
    async with patience():
        await stage.supervisor.failed.wait()
    assert stage.supervisor.last_exit is not None
    assert (stage.supervisor.last_exit.code, stage.supervisor.last_exit.reason) == (
        -9,
        "start time-out",
    )


async def test_wait_serving_waits_for_a_boot(stages: Stages) -> None:
    """As for a new turn: what belongs to a session is there again when the child is."""
    stage = stages("child_healthy.py")
    waiting = asyncio.create_task(stage.supervisor.wait_serving(PATIENCE_SECONDS))
    await asyncio.sleep(0)
    assert not waiting.done()
    await stage.supervisor.start()
    assert await waiting is stage.supervisor.client


async def test_wait_ready_gives_up_in_time(stages: Stages) -> None:
    """A prompt that waits too long is told when to come back."""
    stage = stages("child_never_ready.py")
    await stage.supervisor.start()
    with pytest.raises(ChildUnavailableError) as caught:
        await stage.supervisor.wait_ready(0.3)
    assert caught.value.retry_after_seconds


async def test_silence_degrades_then_kills(stages: Stages) -> None:
    """A child that stops answering is degraded first, then killed and replaced."""
    stage = stages("child_healthy.py", health_timeout_seconds=1.0)
    await stage.supervisor.start()
    await _tell(await stage.supervisor.wait_ready(PATIENCE_SECONDS), "hang")
    await stage.until("ready", boot=2)
    end = stage.states.index("stopping")
    assert stage.states[end - 1 : end + 2] == ["degraded", "stopping", "backing_off"]
    assert stage.supervisor.last_exit is not None
    assert stage.supervisor.last_exit.reason == SILENT


async def test_busy_is_not_dead(stages: Stages) -> None:
    """A child that works stays, degraded, however long it answers nothing, and is ready when it answers."""
    stage = stages("child_busy.py", health_timeout_seconds=0.5)
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    busy = stage.files.cwd / "BUSY"
    busy.touch()
    await stage.until("degraded")
    await asyncio.sleep(
        3.0
    )  # six times the time-out: what must not happen has no event to wait for
    assert (stage.supervisor.state, stage.supervisor.boot) == ("degraded", 1)
    busy.unlink()
    await stage.until("ready")
    assert set(stage.states) == {"starting", "ready", "degraded"}


async def test_a_child_that_is_busy_beyond_the_limit_is_replaced_and_has_not_crashed(
    stages: Stages,
) -> None:
    """The end of an endless loop neither waits nor counts towards the crash loop."""
    stage = stages(
        "child_busy.py",
        health_timeout_seconds=0.5,
        busy_limit_seconds=1.5,
        crash_loop_limit=1,
        restart_first_delay_seconds=3600.0,
    )
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    busy = stage.files.cwd / "BUSY"
    busy.touch()
    stage.supervisor.on_exit(lambda _exit: busy.unlink())
    await stage.until("ready", boot=2)
    assert stage.supervisor.last_exit is not None
    assert stage.supervisor.last_exit.reason == OVERWORKED
    assert "backing_off" not in stage.states


async def test_a_child_that_hangs_without_working_is_replaced(stages: Stages) -> None:
    """Nothing moves in it, so it is dead."""
    stage = stages("child_busy.py", health_timeout_seconds=0.5)
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    hung = stage.files.cwd / "HUNG"
    hung.touch()
    stage.supervisor.on_exit(lambda _exit: hung.unlink(missing_ok=True))
    await stage.until("ready", boot=2)
    assert stage.supervisor.last_exit is not None
    assert stage.supervisor.last_exit.reason == SILENT


async def test_a_stopped_child_is_replaced(stages: Stages) -> None:
    """SIGSTOP leaves a process that is there and does nothing."""
    stage = stages("child_healthy.py", health_timeout_seconds=1.0)
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    assert stage.supervisor.pid is not None
    os.kill(stage.supervisor.pid, signal.SIGSTOP)
    await stage.until("ready", boot=2)
    assert stage.supervisor.last_exit is not None
    assert stage.supervisor.last_exit.reason == SILENT


async def test_on_a_port_that_is_set_a_restart_waits_for_idle(stages: Stages) -> None:
    """Two cannot listen there: a planned restart does not touch a busy child, happens when idle, and is no
    crash."""
    stage = stages("child_healthy.py", port=free_port())
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    stage.busy = {1}
    stage.supervisor.report_broken_config(Path("/somewhere"))
    seen = stage.supervisor.last_exit
    await until(lambda: stage.supervisor.process_stats is not None)
    assert stage.supervisor.restart_pending == "poisoned directory"
    assert (stage.supervisor.boot, stage.supervisor.last_exit) == (1, seen)
    stage.busy = set()
    await stage.until("ready", boot=2)
    assert "backing_off" not in stage.states
    assert stage.supervisor.restart_pending is None


async def test_a_restart_that_finds_no_idle_moment_holds_new_turns(stages: Stages) -> None:
    """Who waits for the child gets the next boot, which comes as soon as the running turns have ended."""
    stage = stages(
        "child_healthy.py",
        port=free_port(),
        restart_patience_seconds=0.1,
        prompt_wait_seconds=3600.0,
    )
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    stage.busy = {1}
    stage.supervisor.request_restart("memory")
    await until(lambda: stage.supervisor._restart.is_holding)
    with pytest.raises(ChildUnavailableError, match="about to be restarted"):
        await stage.supervisor.wait_ready(0.01)
    assert (stage.supervisor.state, stage.supervisor.boot) == ("ready", 1)
    running = await stage.supervisor.wait_serving(0)
    assert running is stage.supervisor.client, "the running turns keep it"
    held = asyncio.create_task(stage.supervisor.wait_ready(PATIENCE_SECONDS))
    stage.busy = set()
    await held
    assert stage.supervisor.boot == 2


async def test_forced_restart_does_not_wait(stages: Stages) -> None:
    """With force a busy child is ended where two cannot listen."""
    stage = stages("child_healthy.py", port=free_port())
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    stage.busy = {1}
    stage.supervisor.request_restart("changed environment", force=True)
    await stage.until("ready", boot=2)


async def test_a_planned_end_stays_one_whatever_is_reported_meanwhile(stages: Stages) -> None:
    """A second wish during the end changes the reason, and neither counts as a crash nor delays the start."""
    stage = stages("child_healthy.py", port=free_port(), restart_first_delay_seconds=3600.0)

    def report(state: State, boot: int) -> None:
        if (state, boot) == ("stopping", 1):
            stage.supervisor.report_broken_config(Path("/somewhere"))

    stage.supervisor.on_state_change(report)
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    stage.supervisor.request_restart("test")
    await stage.until("ready", boot=2)
    assert "backing_off" not in stage.states
    assert stage.supervisor.restart_pending is None


async def _replaced(stage: Stage, reason: str = "test") -> tuple[Boot, Boot]:
    """Have a busy boot replaced; return it and the next one."""
    old = await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    stage.busy = {old.number}
    stage.supervisor.request_restart(reason)
    await until(lambda: stage.supervisor.current is not old)
    new = await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    return old, new


async def test_a_replaced_boot_finishes_its_turns(stages: Stages) -> None:
    """The next one takes new turns at once, without a moment in which there is none; the old one ends when
    its turns have ended, which is no loss of any other boot and no crash."""
    stage = stages("child_healthy.py")
    lost: list[tuple[int, str]] = []
    stage.supervisor.on_lost(lambda boot, loss: lost.append((boot.number, loss)))
    await stage.supervisor.start()
    old, new = await _replaced(stage)
    supervisor = stage.supervisor
    assert (old.number, new.number, supervisor.boot) == (1, 2, 2)
    assert (await supervisor.wait_ready(1)) is new.client
    assert list(supervisor.boots) == [old, new]
    assert supervisor.retiring is old
    assert supervisor.restart_pending is None
    assert await old.client.health(timeout_seconds=PATIENCE_SECONDS) == "fake"
    assert set(supervisor.pids) == {old.pid, new.pid}
    assert lost == []
    assert stage.states == ["starting", "ready", "ready"]
    stage.busy = set()
    await until(lambda: supervisor.retiring is None)
    assert lost == [(1, "ended")]
    assert supervisor.last_exit is not None
    assert (supervisor.last_exit.boot, supervisor.last_exit.reason) == (1, "test")
    assert list(supervisor.boots) == [new]
    assert (supervisor.state, supervisor.overdue) == ("ready", 0)


async def test_one_boot_retires_at_a_time(stages: Stages) -> None:
    """A further replacement waits, forced or not."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    old, new = await _replaced(stage)
    stage.supervisor.request_restart("again", force=True)
    await until(lambda: new.process_stats is not None)
    assert stage.supervisor.restart_pending == "again"
    assert list(stage.supervisor.boots) == [old, new]
    stage.busy = set()
    await stage.until("ready", boot=3)
    await until(lambda: stage.supervisor.retiring is None)


async def test_a_retiring_boot_has_a_deadline(stages: Stages) -> None:
    """Turns that do not end are cut, and that is said."""
    stage = stages("child_healthy.py", retirement_seconds=0.2)
    lost: list[tuple[int, str]] = []
    stage.supervisor.on_lost(lambda boot, loss: lost.append((boot.number, loss)))
    await stage.supervisor.start()
    with capture_logs() as logs:
        await _replaced(stage)
        await until(lambda: stage.supervisor.retiring is None)
    assert lost == [(1, "overdue")]
    assert stage.supervisor.overdue == 1
    assert [entry["boot"] for entry in logs if "are cut" in entry["event"]] == [1]


async def test_turns_that_wait_for_their_client_keep_a_boot_for_less_long(stages: Stages) -> None:
    """They can go on in the next one."""
    stage = stages("child_healthy.py", restart_patience_seconds=0.5)
    await stage.supervisor.start()
    old = await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    stage.waiting = {old.number}
    stage.supervisor.request_restart("test")
    await until(lambda: stage.supervisor.current is not old)
    await until(lambda: stage.supervisor.retiring is None)
    assert stage.asked_with_waiting == [True, False]


async def test_a_retiring_boot_that_dies_is_lost_alone(stages: Stages) -> None:
    """It is no crash of the current one, which goes on."""
    stage = stages("child_healthy.py", crash_loop_limit=1)
    lost: list[tuple[int, str]] = []
    stage.supervisor.on_lost(lambda boot, loss: lost.append((boot.number, loss)))
    await stage.supervisor.start()
    old, new = await _replaced(stage)
    await _tell(old.client, "exit")
    await until(lambda: stage.supervisor.retiring is None)
    assert lost == [(1, "exited")]
    assert stage.supervisor.current is new
    assert stage.supervisor.state == "ready"


async def test_a_retiring_boot_that_hangs_is_ended(stages: Stages) -> None:
    """Its health is watched, too, and says nothing of the current one."""
    stage = stages("child_healthy.py", health_timeout_seconds=3.0)
    await stage.supervisor.start()
    old, _ = await _replaced(stage)
    assert old.pid is not None
    os.kill(old.pid, signal.SIGSTOP)
    await until(lambda: stage.supervisor.retiring is None)
    assert stage.supervisor.last_exit is not None
    assert stage.supervisor.last_exit.reason == SILENT
    assert "degraded" not in stage.states


async def test_a_current_boot_that_dies_leaves_the_retiring_one(stages: Stages) -> None:
    """New turns wait for the third; those of the first go on."""
    stage = stages("child_healthy.py")
    lost: list[tuple[int, str]] = []
    stage.supervisor.on_lost(lambda boot, loss: lost.append((boot.number, loss)))
    await stage.supervisor.start()
    old, new = await _replaced(stage)
    await _tell(new.client, "exit")
    await stage.until("ready", boot=3)
    assert lost == [(2, "exited")]
    assert stage.supervisor.boots[0] is old
    assert await old.client.health(timeout_seconds=PATIENCE_SECONDS) == "fake"


async def test_a_boot_that_dies_while_it_is_replaced(stages: Stages) -> None:
    """The one that was to follow it does so; there is nothing to retire."""
    stage = stages("child_healthy.py", restart_first_delay_seconds=3600.0)
    await stage.supervisor.start()
    old = await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    stage.busy = {1}
    stage.supervisor.request_restart("test")
    await until(lambda: len(stage.supervisor.pids) == 2)
    await _tell(old.client, "exit")
    await stage.until("ready", boot=2)
    assert stage.supervisor.retiring is None


async def test_a_replacement_that_does_not_start_costs_nothing(stages: Stages) -> None:
    """The old boot goes on, and it is tried again."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    old = await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    stage.busy = {1}
    works = stage.launcher.read_text()
    stage.launcher.write_text("#!/bin/sh\nexit 3\n")
    with capture_logs() as logs:
        stage.supervisor.request_restart("test")
        await until(lambda: any("cannot be replaced" in entry["event"] for entry in logs))
    assert stage.supervisor.current is old
    assert stage.supervisor.restart_pending == "test"
    assert "backing_off" not in stage.states
    stage.launcher.write_text(works)
    await until(lambda: stage.supervisor.retiring is old)


@pytest.mark.parametrize("moment", ["retiring", "starting"])
async def test_stop_ends_both(stages: Stages, moment: str) -> None:
    """Whether the old one retires already or the next one only starts."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    stage.busy = {1}
    stage.supervisor.request_restart("test")
    if moment == "retiring":
        await until(lambda: stage.supervisor.retiring is not None)
    else:
        await until(lambda: len(stage.supervisor.pids) == 2)
    pids = list(stage.supervisor.pids)
    await stage.supervisor.stop()
    assert [pid for pid in pids if not _is_gone(pid)] == []
    assert list(stage.supervisor.pids) == []


async def test_drain_keeps_a_retiring_boot(stages: Stages) -> None:
    """Its turns have the drain's time as those of the current one have."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    old, new = await _replaced(stage)
    stage.supervisor.drain()
    stage.supervisor.request_restart("too late")
    assert list(stage.supervisor.boots) == [old, new]
    stage.busy = set()
    await until(lambda: stage.supervisor.retiring is None)
    assert list(stage.supervisor.boots) == [new]
    assert stage.supervisor.boot == 2


async def test_a_spare_takes_over_at_once(stages: Stages) -> None:
    """When the current boot dies the next one is there already, and another spare is made."""
    stage = stages("child_healthy.py", spare=True, restart_first_delay_seconds=3600.0)
    await stage.supervisor.start()
    first = await stage.supervisor.wait_boot(PATIENCE_SECONDS)
    await until(lambda: stage.supervisor._spare is not None)
    assert list(stage.supervisor.boots) == [first]
    await _tell(first.client, "exit")
    await stage.until("ready", boot=2)
    assert "backing_off" in stage.states  # between the two, for a moment
    await until(lambda: stage.supervisor._spare is not None)
    assert len(stage.supervisor.pids) == 2


async def test_a_planned_restart_takes_no_spare(stages: Stages) -> None:
    """A spare may run the program of before; it makes room for a new one."""
    stage = stages("child_healthy.py", spare=True)
    await stage.supervisor.start()
    await until(lambda: stage.supervisor._spare is not None)
    old, new = await _replaced(stage)
    assert (old.number, new.number) == (1, 3)
    assert set(stage.supervisor.pids) == {old.pid, new.pid}
    stage.busy = set()
    await until(lambda: stage.supervisor._spare is not None)


async def test_heavy_child_is_replaced(stages: Stages) -> None:
    """A resident size above the limit is a reason to replace it, busy or not."""
    stage = stages("child_healthy.py", max_rss_bytes=1)
    stage.busy = {1}
    await stage.supervisor.start()
    await stage.until("ready", boot=2)
    assert stage.supervisor.retiring is not None
    assert stage.supervisor.retiring.process_stats is not None
    assert stage.supervisor.retiring.process_stats.rss_bytes > 1


async def test_stop_ends_stubborn_children_and_what_they_left(stages: Stages) -> None:
    """SIGTERM ignored ends in SIGKILL, and processes in sessions of their own are swept."""
    stage = stages("child_stubborn.py")
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    pid, left = stage.supervisor.pid, int((stage.files.cwd / "left.pid").read_text())
    assert pid is not None
    assert not _is_gone(left)
    await stage.supervisor.stop()
    assert _is_gone(pid)
    assert not psutil.pid_exists(left)


async def test_drain_keeps_the_client_and_refuses_newcomers(stages: Stages) -> None:
    """While draining, running turns can still talk to the child, new ones cannot."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    client = await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    stage.supervisor.drain()
    assert await stage.supervisor.wait_serving(0) is client
    with pytest.raises(ChildUnavailableError, match="draining"):
        await stage.supervisor.wait_ready(1)


async def test_a_child_that_only_starts_is_drained_too(stages: Stages) -> None:
    """Nobody waits for it any more, and it does not come up as ready for new turns."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    await stage.until("starting")
    waiting = asyncio.create_task(stage.supervisor.wait_ready(PATIENCE_SECONDS))
    await asyncio.sleep(0)
    stage.supervisor.drain()
    with pytest.raises(ChildUnavailableError, match="draining"):
        await waiting
    with pytest.raises(ChildUnavailableError, match="draining"):
        await stage.supervisor.wait_serving(PATIENCE_SECONDS)
    await stage.until("draining")
    assert "ready" not in stage.states
    with pytest.raises(ChildUnavailableError, match="draining"):
        await stage.supervisor.wait_ready(1)


async def test_a_child_that_answers_after_the_stop_is_not_ready(stages: Stages) -> None:
    """The stop came while the health request was under way."""
    stage = stages("child_thoughtful.py")
    await stage.supervisor.start()
    await until((stage.files.cwd / "asked").exists)
    await stage.supervisor.stop()
    assert stage.states == ["starting", "stopping", "stopped"]


async def test_stop_while_backing_off_is_quick(stages: Stages) -> None:
    """Stopping does not sit out a long delay."""
    stage = stages("child_crasher.py", restart_first_delay_seconds=3600.0)
    await stage.supervisor.start()
    await stage.until("backing_off")
    async with patience():
        await stage.supervisor.stop()
    assert stage.supervisor.state == "stopped"
