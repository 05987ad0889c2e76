"""Health checks: what counts as dead, and what as busy."""

import asyncio
import os
import signal

from sidecar.opencode.pulse import OVERWORKED, SILENT
from tests.integration.supervisor.stage import Stages, tell
from tests.waiting import PATIENCE_SECONDS


async def test_silence_degrades_then_kills(stages: Stages) -> None:
    """A child that stops answering is degraded first, then killed and replaced."""
    stage = stages("child_healthy.py", health_timeout_seconds=1.0)
    await stage.supervisor.start()
    await tell(await stage.supervisor.wait_ready(PATIENCE_SECONDS), "hang")
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


async def test_heavy_child_is_replaced(stages: Stages) -> None:
    """A resident size above the limit is a reason to replace it, busy or not."""
    stage = stages("child_healthy.py", max_rss_bytes=1)
    stage.busy = {1}
    await stage.supervisor.start()
    await stage.until("ready", boot=2)
    assert stage.supervisor.retiring is not None
    assert stage.supervisor.retiring.process_stats is not None
    assert stage.supervisor.retiring.process_stats.rss_bytes > 1
