"""Nothing of the official SDK's managed agents API is silently ignored."""

from collections.abc import AsyncIterator

import anthropic
import pytest

from tests.api_coverage import DOCUMENT, MODEL, ROOT, SEEN, document, sidecar_and_sdk, survey


@pytest.fixture(scope="module")
async def sdk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sidecar_and_sdk(tmp_path_factory.mktemp("coverage")) as client:
        yield client


@pytest.mark.timeout(900)
async def test_every_method_and_parameter_is_right_refused_or_absent(
    sdk: anthropic.AsyncAnthropic,
) -> None:
    """Silence is no answer; and docs/api-coverage.md says what each of them is."""
    rows = await survey(sdk)
    silent = [f"{r.method}({r.path}): {r.remark}" for r in rows if r.result == "SILENT"]
    assert silent == []
    assert len([row for row in rows if row.result == "right"]) > 300
    assert document(rows) == DOCUMENT.read_text(encoding="utf-8"), (
        "run python -m tests.api_coverage"
    )


def test_the_tests_that_see_an_effect_exist() -> None:
    """They are named in the table."""
    assert [name for name in SEEN.values() if not (ROOT / name).exists()] == []


async def test_sessions_of_what_is_not_offered(sdk: anthropic.AsyncAnthropic) -> None:
    """No session has a deployment or a memory store, so none is found by one."""
    agent = await sdk.beta.agents.create(name="a", model=MODEL)
    place = await sdk.beta.environments.create(name="e")
    session = await sdk.beta.sessions.create(agent=agent.id, environment_id=place.id)
    assert [s.id async for s in sdk.beta.sessions.list(agent_id=agent.id)] == [session.id]
    assert [s async for s in sdk.beta.sessions.list(deployment_id="depl_1")] == []
    assert [s async for s in sdk.beta.sessions.list(memory_store_id="memstore_1")] == []


async def test_previews_on_the_stream_of_a_thread(sdk: anthropic.AsyncAnthropic) -> None:
    """They are asked for, and checked, as on the session's stream."""
    agent = await sdk.beta.agents.create(name="a", model=MODEL)
    place = await sdk.beta.environments.create(name="e")
    session = await sdk.beta.sessions.create(agent=agent.id, environment_id=place.id)
    (thread,) = [t async for t in sdk.beta.sessions.threads.list(session.id)]
    stream = sdk.beta.sessions.threads.events.stream
    opened = await stream(thread.id, session_id=session.id, event_deltas=["agent.message"])
    await opened.close()
    wrong: list[object] = ["session.error"]
    with pytest.raises(anthropic.BadRequestError, match="event_deltas"):
        await stream(thread.id, session_id=session.id, event_deltas=wrong)  # type: ignore[arg-type]
