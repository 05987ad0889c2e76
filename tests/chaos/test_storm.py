"""The chaos tier (`make chaos`): a storm over a sidecar that keeps every promise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.burst import burst
from tests.chaos.crowd import crowd
from tests.chaos.soak import soak
from tests.chaos.storm import blow


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_nothing_is_lost_doubled_or_left_in_a_storm(tmp_path: Path) -> None:
    """Every accepted message has one turn with one end, no command ran twice, what was shown is stored, no
    process and no key is left anywhere."""
    seed = int(os.environ.get("SEED", "1"))
    minutes = float(os.environ.get("MINUTES", "2"))
    report = await blow(tmp_path, seed=seed, seconds=60 * minutes)
    print(f"\n{report}")  # the report is what the tier is for
    assert report.is_good, str(report)
    assert report.findings.accepted >= 20
    assert report.findings.ended == report.findings.accepted
    assert report.findings.commands_run
    assert set(report.faults)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_a_burst_cuts_no_turn(tmp_path: Path) -> None:
    """Far more turns at once than opencode is given: all are accepted, and all end well."""
    sessions = int(os.environ.get("BURST", "100"))
    result = await burst(tmp_path, sessions=sessions)
    print(f"\n{result}")
    assert result.good == sessions, str(result)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_nothing_grows_with_use(tmp_path: Path) -> None:
    """The same work again and again: memory, descriptors and threads are at the end what they were before."""
    result = await soak(tmp_path, rounds=int(os.environ.get("ROUNDS", "6")))
    print(f"\n{result}")
    assert not result.growths, str(result)
    assert result.cut == 0, str(result)


@pytest.mark.chaos
@pytest.mark.timeout(0)
async def test_a_crowd_of_streams_costs_what_it_holds_and_no_more(tmp_path: Path) -> None:
    """As many streams as are served, clients that come and go, and all of them back at once after a crash:
    every stream shows the end of its turn, more are refused, nothing is left."""
    streams = int(os.environ.get("STREAMS", "300"))
    result = await crowd(tmp_path, streams=streams, passers_by=2 * streams)
    print(f"\n{result}")
    assert not result.faults, str(result)
