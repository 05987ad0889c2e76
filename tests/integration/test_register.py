"""deploy/register.py against LAP's registration routes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.fakes.lap_registry import MASTER_KEY, FakeLap
from tests.waiting import PATIENCE_SECONDS

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "register.py"
RUNTIME_KEY = 'a "runtime" key'
"""With quotes, which a shell script would have to escape."""


async def run(**variables: str) -> tuple[int, str]:
    """Run the script with nothing but these variables; return its exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT)),
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode or 0, output.decode()


def environment(lap: FakeLap, **changes: str) -> dict[str, str]:
    """What the job gets. The fake LAP also stands for the runtime: both answer /health."""
    return {
        "LAP_URL": lap.url,
        "LAP_MASTER_KEY": MASTER_KEY,
        "RUNTIME_API_BASE": lap.url,
        "RUNTIME_API_KEY": RUNTIME_KEY,
    } | changes


async def test_a_new_runtime_is_created() -> None:
    """The first run posts exactly the four fields that LAP stores."""
    async with FakeLap() as lap:
        code, output = await run(**environment(lap))
        assert code == 0, output
        assert lap.runtimes == {
            "local-opencode": {
                "alias": "local-opencode",
                "api_spec": "claude_managed_agents",
                "api_base": lap.url,
                "api_key": RUNTIME_KEY,
            }
        }
        assert lap.calls == ["POST /api/runtime-harnesses"]


async def test_a_second_run_updates_what_is_there() -> None:
    """Where the alias exists, its address and key are replaced, and the job succeeds."""
    async with FakeLap() as lap:
        await run(**environment(lap, RUNTIME_ALIAS="mine"))
        code, output = await run(**environment(lap, RUNTIME_ALIAS="mine", RUNTIME_API_KEY="new"))
        assert code == 0, output
        assert lap.runtimes["mine"]["api_key"] == "new"
        assert lap.calls[1:] == ["POST /api/runtime-harnesses", "PUT /api/runtime-harnesses/mine"]


async def test_it_waits_for_neighbours_that_start_later() -> None:
    """An unwell LAP is asked again until it is well."""
    async with FakeLap(unwell_checks=2) as lap:
        code, output = await run(**environment(lap))
        assert code == 0, output
        assert "waiting for LAP" in output
        assert set(lap.runtimes) == {"local-opencode"}


async def test_the_wait_for_a_neighbour_is_bounded() -> None:
    """Who never answers is named, and nothing is registered."""
    async with FakeLap() as lap:
        changes = {"RUNTIME_API_BASE": "http://127.0.0.1:1", "REGISTER_WAIT_SECONDS": "0.1"}
        code, output = await run(**environment(lap, **changes))
        assert code == 1
        assert "the runtime does not answer at http://127.0.0.1:1/health" in output
        assert lap.calls == []


async def test_a_refusal_tells_both_answers_and_no_key() -> None:
    """A wrong master key fails the job with LAP's words; neither key is printed."""
    async with FakeLap() as lap:
        code, output = await run(**environment(lap, LAP_MASTER_KEY="wrong-master"))
        assert code == 1
        assert output.count("401") == 2
        assert "wrong-master" not in output
        assert RUNTIME_KEY not in output


async def test_the_version_suffix_is_dropped() -> None:
    """LAP appends /v1 itself, so an api_base that ends in it is registered without."""
    async with FakeLap() as lap:
        code, output = await run(**environment(lap, RUNTIME_API_BASE=f"{lap.url}/v1/"))
        assert code == 0, output
        assert lap.runtimes["local-opencode"]["api_base"] == lap.url


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"LAP_MASTER_KEY": ""}, "not set: LAP_MASTER_KEY"),
        ({"RUNTIME_ALIAS": "with space"}, "RUNTIME_ALIAS=with space"),
        ({"RUNTIME_ALIAS": "cursor"}, "RUNTIME_ALIAS=cursor"),
        ({"LAP_URL": "lap:4000"}, "LAP_URL=lap:4000"),
        ({"REGISTER_WAIT_SECONDS": "long"}, "REGISTER_WAIT_SECONDS=long"),
    ],
)
async def test_bad_settings_are_refused_before_any_call(
    changes: dict[str, str], complaint: str
) -> None:
    """A setting that cannot work ends the job with 2 and is named."""
    async with FakeLap() as lap:
        code, output = await run(**environment(lap, **changes))
        assert code == 2
        assert complaint in output
        assert lap.calls == []


async def test_a_secret_may_end_in_a_newline() -> None:
    """Secrets made from files do; what is sent and stored has no white space around it."""
    async with FakeLap() as lap:
        wild = {name: f"{value}\n" for name, value in environment(lap).items()}
        code, output = await run(**wild)
        assert code == 0, output
        assert lap.runtimes["local-opencode"]["api_key"] == RUNTIME_KEY
        assert lap.runtimes["local-opencode"]["api_base"] == lap.url
