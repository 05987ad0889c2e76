"""The facts that the design leans on, checked against the pinned opencode, one test for each."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.compat.bench import CompatBench, FactError, expect, open_bench
from sidecar.compat.config_facts import only_our_provider
from sidecar.compat.facts import CHECKS, Check, fact_of, run_checks
from sidecar.config import ChildSettings


@pytest.fixture(scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CompatBench]:
    async with open_bench(tmp_path_factory.mktemp("lab"), ChildSettings()) as bench:
        yield bench


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_fact_holds(bench: CompatBench, check: Check) -> None:
    """The pinned opencode behaves as the check's docstring says."""
    await check(bench)


async def test_a_fact_that_does_not_hold_is_found(bench: CompatBench) -> None:
    """A check sees the difference: with a second model `only ours` is no longer true of the first list."""
    with pytest.raises(FactError, match="vendor/late"):
        await only_our_provider(bench)


async def test_one_failure_does_not_hide_the_others(bench: CompatBench) -> None:
    """Each check is run and reported, with its fact and what was seen, whatever the one before did."""

    async def wrong(_lab: CompatBench) -> None:
        """The moon is made
        of cheese."""
        expect(False, "it is rock")

    async def odd(_lab: CompatBench) -> None:
        """The answer has a field."""
        raise KeyError("field")

    async def right(_lab: CompatBench) -> None:
        """Water is wet."""

    found = [(r.fact, r.problem) async for r in run_checks(bench, (wrong, odd, right))]
    assert found[0] == ("The moon is made of cheese.", "it is rock")
    assert found[1][1] is not None
    assert "another shape: KeyError" in found[1][1]
    assert found[2] == ("Water is wet.", None)


def test_every_check_tells_its_fact() -> None:
    """The report is made of the docstrings, so each has one, and no two are alike."""
    facts = [fact_of(check) for check in CHECKS]
    assert all(fact.endswith(".") for fact in facts)
    assert len(set(facts)) == len(facts)


def test_without_a_binary_the_command_says_so(tmp_path: Path) -> None:
    """`doctor --compat` without an opencode ends with 3 and names the setting."""
    answer = subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", "--compat"],
        env={"PATH": "/nowhere", "SIDECAR_CHILD_BINARY": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 3, answer.stdout + answer.stderr
    assert "SIDECAR_CHILD_BINARY" in answer.stderr
