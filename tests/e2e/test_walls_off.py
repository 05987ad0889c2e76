"""Without confinement commands still end as they should."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.confined import Sessions, confined, install


@pytest.fixture(scope="module")
async def sessions(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sessions]:
    """A sidecar that confines nothing."""
    installation = install(tmp_path_factory.mktemp("installation"), "own")
    data_dir = tmp_path_factory.getbasetemp() / "off"
    async with confined(installation, data_dir, SIDECAR_CONFINEMENT="off") as made:
        yield made


async def test_a_command_that_ends_by_a_signal(sessions: Sessions) -> None:
    """Its result comes at once, as an error with a shell's status, not at the command's time limit."""
    turn = await sessions.turn(await sessions.session(), "[[bash: echo begun; kill -9 $$]]")
    (result,) = [event for event in turn if event["type"] == "agent.tool_result"]
    said = result["content"][0]["text"]
    assert result["is_error"]
    assert "begun" in said
    assert "137" in said
    assert "timeout" not in said


async def test_status_and_arguments_arrive(sessions: Sessions) -> None:
    """The shell in between changes nothing."""
    session = await sessions.session()
    said = await sessions.bash(
        session, "printf '%s|' 'two  words' \"a'b\"; cat <<< $BASH_VERSION; exit 3"
    )
    assert "two  words|a'b|5." in said
    assert "exit code 3" in said
