"""Supervisors for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.supervisor.stage import Stage, Stages


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
