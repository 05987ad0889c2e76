"""What the metrics say after turns through the real opencode."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sidecar.app import RunningSidecar
from tests.harness import http_client
from tests.raw_client import MODEL, RawClient
from tests.waiting import until

Read = Callable[[], Awaitable[dict[str, float]]]
_SAMPLE = re.compile(r"^opencode_sidecar_([a-z_]+(?:\{.*\})?) ([0-9.e+-]+)$", re.M)


@pytest.fixture
async def read(sidecar: RunningSidecar) -> AsyncIterator[Read]:
    """Read the samples of the shared sidecar by name and labels."""
    assert sidecar.admin_url is not None
    async with http_client(sidecar.admin_url, None) as http:

        async def scrape() -> dict[str, float]:
            async with http.get("/metrics") as answer:
                text = await answer.text()
            return {name: float(value) for name, value in _SAMPLE.findall(text)}

        yield scrape


async def quiet(read: Read) -> dict[str, float]:
    """Return the samples once no turn runs: tests of other files share the sidecar."""

    async def scrape() -> dict[str, float]:
        samples = await read()
        busy = samples["turns_running"] or samples["model_requests_in_flight"]
        return {} if busy else samples

    return await until(scrape)


def grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    """Return by how much a sample grew."""
    return after.get(name, 0.0) - before.get(name, 0.0)


async def test_a_turn_is_counted_with_its_tokens_and_cost(raw: RawClient, read: Read) -> None:
    """One turn: one completed, its active time, its model request, the tokens and the cost of them."""
    session = await raw.new_session()
    before = await quiet(read)
    turn = await raw.turn(session, "[[say: hello]]")
    after = await quiet(read)
    usage = next(e for e in turn if e["type"] == "span.model_request_end")["model_usage"]

    assert grown(before, after, 'turns_total{error="",outcome="completed"}') == 1
    assert 0 < grown(before, after, 'turn_duration_seconds_sum{outcome="completed"}') < 60
    assert grown(before, after, f'model_requests_total{{model="{MODEL}",outcome="ok"}}') == 1
    assert grown(before, after, f'model_request_first_byte_seconds_count{{model="{MODEL}"}}') == 1
    for kind, field in (("input", "input_tokens"), ("output", "output_tokens")):
        name = f'model_tokens_total{{kind="{kind}",model="{MODEL}"}}'
        assert grown(before, after, name) == usage[field] > 0
    assert grown(before, after, f'model_cost_usd_total{{model="{MODEL}"}}') > 0
    assert grown(before, after, "event_log_events_total") >= len(turn)
    assert after["model_requests_in_flight"] == 0
    assert after["turns_running"] == 0
    assert after["instances_loaded"] >= 1
    assert after["child_events_connected"] == 1


async def test_a_failed_and_an_interrupted_turn_are_told_apart(raw: RawClient, read: Read) -> None:
    """A gateway's refusal counts as failed with its error type, an interrupt as interrupted."""
    session = await raw.new_session()
    before = await quiet(read)
    await raw.turn(session, "[[error: 400]]")
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, "[[slow: 300x0.1 tick]]")
        await reader.until("event_delta")
        during = await read()
        await raw.interrupt(session)
        await reader.until("session.status_idle")
    after = await quiet(read)
    failed = 'turns_total{error="model_request_failed_error",outcome="failed"}'
    assert grown(before, after, failed) == 1
    assert grown(before, after, 'turns_total{error="",outcome="interrupted"}') == 1
    assert grown(before, after, f'model_requests_total{{model="{MODEL}",outcome="cancelled"}}') == 1
    assert grown(before, after, f'model_requests_total{{model="{MODEL}",outcome="failed"}}') == 1
    assert during["turns_running"] == 1
    assert during["event_streams_open"] >= 1
    assert during["model_requests_in_flight"] == 1


async def test_paths_become_route_templates(raw: RawClient, read: Read) -> None:
    """No id, and nothing a stranger invents, becomes a label."""
    await raw.new_session()
    async with raw.http.get("/v1/sessions/sesn_nobody") as answer:
        assert answer.status == 404
    async with raw.http.request("PROPFIND", "/v1/strange/path/42") as answer:
        assert answer.status in {404, 405}
    samples = await read()
    requests = [name for name in samples if name.startswith("http_requests_total")]
    assert 'http_requests_total{method="POST",route="/v1/sessions",status="200"}' in requests
    assert 'http_requests_total{method="GET",route="/v1/sessions/{id}",status="404"}' in requests
    assert not [name for name in requests if "sesn_" in name or "strange" in name]
    assert not [name for name in requests if "PROPFIND" in name]
