"""The process that ends opencode when the sidecar can no longer say that it may run."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sidecar.processes.guardian import Guardian

_SECONDS = 60


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes that would run on."""
    command = [sys.executable, "-I", "-c", f"import time; time.sleep({10 * _SECONDS})"]
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command)) for _ in range(3)]
        yield processes
        for process in processes:
            process.kill()


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    """One that waits for three seconds between two beats."""
    made = Guardian(bound_seconds=3.0)
    yield made
    made.close()


def test_all_children_end_without_a_beat(
    guardian: Guardian, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """The current opencode and the one that retires; a process that is none of them runs on."""
    current, retiring, other = sleepers
    guardian.beat()
    guardian.watch([current.pid, retiring.pid])
    assert current.wait(_SECONDS) == retiring.wait(_SECONDS) == -9
    assert other.poll() is None


def test_one_that_was_replaced_is_no_child_any_more(
    guardian: Guardian, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """Only the latest word about which processes are children counts."""
    old, new, _ = sleepers
    guardian.beat()
    guardian.watch([old.pid, new.pid])
    guardian.watch([new.pid])
    assert new.wait(_SECONDS) == -9
    assert old.poll() is None


def test_a_guardian_that_starts_later_knows_all_of_them(
    guardian: Guardian, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    """Children that were named before the first beat are watched, and end with the sidecar's pipe."""
    first, second, _ = sleepers
    guardian.watch([first.pid, second.pid])
    guardian.beat()
    guardian.close()
    assert first.wait(_SECONDS) == second.wait(_SECONDS) == -9
