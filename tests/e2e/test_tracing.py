"""A caller's trace reaches the gateway through the turn, and spans reach a collector."""

from pathlib import Path

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.fakes.otlp_collector import OtlpCollector
from tests.harness import http_client, make_settings, sidecar_for, user_message
from tests.raw_client import RawClient

SPAN = "00f067aa0ba902b7"


def context(number: int) -> str:
    """Return a valid `traceparent` of a trace of its own."""
    return f"00-{number:032x}-{SPAN}-01"


async def send(raw: RawClient, session: str, text: str, traceparent: str | None) -> None:
    """Send a message as a caller with that context."""
    headers = {"traceparent": traceparent} if traceparent else {}
    path, body = f"/v1/sessions/{session}/events", {"events": [user_message(text)]}
    async with raw.http.post(path, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


def contexts_of(gateway: DemoGateway, text: str) -> list[str | None]:
    """Return the contexts of the model requests whose last user message has that text."""
    return [
        request.headers.get("traceparent")
        for request in gateway.requests
        if request.method == "POST" and text in str(request.body["messages"][-1])
    ]


async def test_the_callers_context_reaches_the_gateway(
    raw: RawClient, sidecar: RunningSidecar, gateway: DemoGateway
) -> None:
    """Each turn's model requests carry the context of the request that sent its message, queued ones too."""
    session = await raw.new_session()
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await send(raw, session, "[[slow: 8x0.1 first]] trace-one", context(1))
        await reader.until("event_delta")
        await send(raw, session, "[[say: second]] trace-two", context(2))
        await send(raw, session, "[[say: third]] trace-none", None)
        await send(raw, session, "[[say: fourth]] trace-junk", "00-junk")
        await reader.until("session.status_idle", count=4)
    assert contexts_of(gateway, "trace-one") == [context(1)]
    assert contexts_of(gateway, "trace-two") == [context(2)]
    assert contexts_of(gateway, "trace-none") == [None]
    assert contexts_of(gateway, "trace-junk") == [None]


async def test_spans_form_one_tree(gateway: DemoGateway, tmp_path: Path) -> None:
    """Request, turn and model requests are spans of the caller's trace, each below what caused it."""
    collector = OtlpCollector()
    await collector.start()
    settings = make_settings(tmp_path, gateway.url, tracing={"endpoint": collector.url})
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        raw = RawClient(http)
        session = await raw.new_session()
        async with raw.stream(session) as reader:
            await send(raw, session, "[[bash: true]] [[then]] [[say: spans]]", context(7))
            await reader.until("session.status_idle")
        async with http.get("/livez") as answer:
            assert answer.status == 200
    await collector.close()

    spans = [span for span in collector.spans if span.trace_id.hex() == f"{7:032x}"]
    (request,) = [span for span in spans if span.name == "POST /v1/sessions/{id}/events"]
    (turn,) = [span for span in spans if span.name == "turn"]
    models = [span for span in spans if span.name.startswith("chat ")]
    assert collector.services == {"opencode-sidecar"}
    assert request.parent_span_id.hex() == SPAN
    assert turn.parent_span_id == request.span_id
    assert len(models) == 2
    assert {span.parent_span_id for span in models} == {turn.span_id}
    assert all(turn.start_time_unix_nano <= span.start_time_unix_nano for span in models)
    attributes = {a.key: a.value for a in turn.attributes}
    assert attributes["turn.outcome"].string_value == "completed"
    sent = contexts_of(gateway, "spans")[-1]
    assert sent in {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in models}
    assert not [span for span in collector.spans if "livez" in span.name]
