"""Whatever a client sends, the answer is in the envelope, and the next client is served."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.chaos.hostile_bodies import new_session
from tests.chaos.hostile_requests import ODDITIES, Oddity, pipelined, send
from tests.chaos.target import Target
from tests.integration.test_body_bounds import served


@pytest.fixture(scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    async with served(tmp_path_factory.mktemp("hostile")) as (_, target):
        yield target


@pytest.fixture(scope="module")
async def session(target: Target) -> str:
    return await new_session(target)


@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity.name)
async def test_an_odd_request_is_answered(target: Target, session: str, oddity: Oddity) -> None:
    """Refused in the envelope, or served where the oddity changes nothing; never a fault of ours."""
    outcome = await send(target, oddity, session)
    assert not outcome.problem, (oddity.name, outcome)
    assert (await target.call("GET", "/livez")).status == 200


async def test_pipelined_requests_are_answered_in_order(target: Target) -> None:
    """A thousand on one connection, sent before the first answer is read."""
    assert await pipelined(target, 1000) == 1000
