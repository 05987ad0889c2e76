"""Restarts on a port that is set, where two children cannot listen at once."""

import asyncio
from pathlib import Path

import pytest

from sidecar.errors import ChildUnavailableError
from sidecar.opencode.child import State
from tests.integration.supervisor.stage import Stages
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, until


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
