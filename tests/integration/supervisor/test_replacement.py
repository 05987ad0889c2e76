"""A child is replaced while it has turns: it retires beside the next one."""

import os
import signal

import pytest
from structlog.testing import capture_logs

from sidecar.opencode.boot import Boot
from sidecar.opencode.pulse import SILENT
from tests.integration.supervisor.stage import Stage, Stages, is_gone, tell
from tests.waiting import PATIENCE_SECONDS, until


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
    await tell(old.client, "exit")
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
    await tell(new.client, "exit")
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
    await tell(old.client, "exit")
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
    assert [pid for pid in pids if not is_gone(pid)] == []
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
    await tell(first.client, "exit")
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
