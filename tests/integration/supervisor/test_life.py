"""Starts, crashes and ends of a supervised child."""

import asyncio
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from sidecar.errors import ChildUnavailableError
from sidecar.opencode.environment import PINNED_VERSION
from tests.integration.supervisor.stage import Stages, is_gone, tell
from tests.waiting import PATIENCE_SECONDS, patience, until


async def test_start_to_stop(stages: Stages) -> None:
    """A healthy child goes stopped, starting, ready, stopping, stopped; stop disposes first.

    It is of another version than the tested one, which is said.
    """
    stage = stages("child_healthy.py")
    with capture_logs() as logs:
        await stage.supervisor.start()
        client = await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    assert stage.supervisor.boot == 1
    assert stage.supervisor.version == "fake"
    (warning,) = [entry for entry in logs if "not of the tested version" in entry["event"]]
    assert (warning["version"], warning["tested"]) == ("fake", PINNED_VERSION)
    pid = stage.supervisor.pid
    assert pid is not None
    assert client is stage.supervisor.client
    await stage.supervisor.stop()
    assert stage.states == ["starting", "ready", "stopping", "stopped"]
    assert is_gone(pid)
    with pytest.raises(ChildUnavailableError):
        await stage.supervisor.wait_ready(1)


async def test_crash_is_followed_by_a_new_boot(stages: Stages) -> None:
    """A child that dies is replaced after a delay; there is no client in between, and the exit is
    on record."""
    stage = stages("child_healthy.py")
    await stage.supervisor.start()
    client = await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    await tell(client, "exit")
    await stage.until("ready", boot=2)
    assert stage.states == ["starting", "ready", "backing_off", "starting", "ready"]
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
    """After the limit of crashes the state is failed, with the child's last output, and no caller waits
    any more."""
    stage = stages("child_crasher.py", crash_loop_limit=3)
    await stage.supervisor.start()
    async with patience():
        await stage.supervisor.failed.wait()
    assert stage.supervisor.state == "failed"
    assert stage.supervisor.boot == 3
    assert not stage.supervisor.is_misconfigured
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
    assert stage.supervisor.is_misconfigured
    assert "SIDECAR_CHILD_BINARY" in stage.supervisor.failure


async def test_a_program_that_is_no_opencode_fails_at_once(stages: Stages) -> None:
    """It ended before it was ready, and its version is none: no crash loop."""
    stage = stages("child_healthy.py")
    stage.launcher.write_text("#!/bin/sh\necho cat 9.1\n")
    await stage.supervisor.start()
    async with patience():
        await stage.supervisor.failed.wait()
    assert stage.supervisor.boot == 1
    assert stage.supervisor.is_misconfigured
    assert "`--version` printed 'cat 9.1'" in stage.supervisor.failure


async def test_stop_while_the_version_is_asked(stages: Stages, tmp_path: Path) -> None:
    """Stopping waits for no answer, and leaves nothing of the program that was asked."""
    stage = stages("child_healthy.py")
    asked = tmp_path / "asked"
    stage.launcher.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || exit 1\necho $$ > {asked}.new\n'
        f"mv {asked}.new {asked}\nexec sleep 600\n"
    )
    await stage.supervisor.start()
    await until(asked.exists)
    pid = int(asked.read_text())
    assert not is_gone(pid)
    await stage.supervisor.stop()
    assert is_gone(pid)
    assert stage.supervisor.state == "stopped"
    assert not stage.supervisor.failed.is_set()


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
    """A prompt that waits too long is refused with a time to come back."""
    stage = stages("child_never_ready.py")
    await stage.supervisor.start()
    with pytest.raises(ChildUnavailableError) as caught:
        await stage.supervisor.wait_ready(0.3)
    assert caught.value.retry_after_seconds


async def test_stop_ends_stubborn_children_and_what_they_left(stages: Stages) -> None:
    """SIGTERM ignored ends in SIGKILL, and processes in sessions of their own are swept."""
    stage = stages("child_stubborn.py")
    await stage.supervisor.start()
    await stage.supervisor.wait_ready(PATIENCE_SECONDS)
    pid, left = stage.supervisor.pid, int((stage.files.cwd / "left.pid").read_text())
    assert pid is not None
    assert not is_gone(left)
    await stage.supervisor.stop()
    assert is_gone(pid)
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
    """Its waiters are released, and it does not come up as ready for new turns."""
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
