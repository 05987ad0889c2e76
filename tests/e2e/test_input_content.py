"""What people send beside text, and what models say beside plain ASCII. The real opencode."""

import base64
import json
from typing import Any

import pytest

from sidecar.demo_gateway import DemoGateway
from tests.harness import text_of, types_of, user_message
from tests.raw_client import RawClient, plain

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WORDS = "\u6994\u6843 \U0001f352 na\u00efve \u0645\u0631\u062d\u0628\u0627 e\u0301"
BLIND, SEEING = "ollama/qwen3:8b", "openai/gpt-4o"


def image(data: str = PICTURE) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return {"type": "image", "source": source}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def document(**source: str) -> dict[str, Any]:
    return {"type": "document", "title": "notes.txt", "source": source}


def asked_with(gateway: DemoGateway, words: str) -> Any:
    """Return the body of the newest model request that has the words."""
    return next(r.body for r in reversed(gateway.requests) if r.body and words in str(r.body))


async def run(raw: RawClient, session: str, *blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one turn with the blocks as the user's message."""
    async with raw.stream(session) as reader:
        await raw.send_events(session, {"type": "user.message", "content": list(blocks)})
        return await reader.until("session.status_idle")


async def test_an_image_reaches_a_model_that_takes_images(
    raw: RawClient, gateway: DemoGateway
) -> None:
    """The bytes are in the model request, the echo shows the blocks as they were sent."""
    session = await raw.new_session(model=SEEING)
    blocks = [text("[[say: I see]]"), image()]
    turn = await run(raw, session, *blocks)
    assert plain(turn, "user.message")[0]["content"] == blocks
    assert text_of(turn) == "I see"
    asked = asked_with(gateway, PICTURE)["messages"][-1]
    urls = [part["image_url"]["url"] for part in asked["content"] if part["type"] == "image_url"]
    assert urls == [f"data:image/png;base64,{PICTURE}"]


@pytest.mark.parametrize(
    "block",
    [
        image(),
        document(
            type="base64", media_type="application/pdf", data=base64.b64encode(b"%PDF-1.4").decode()
        ),
    ],
)
async def test_a_model_that_takes_only_text_refuses_the_rest(
    raw: RawClient, block: dict[str, Any]
) -> None:
    """400 that names model, place and kind of input; nothing of the message is kept."""
    session = await raw.new_session(model=BLIND)
    body = {"events": [{"type": "user.message", "content": [text("look"), block]}]}
    async with raw.http.post(f"/v1/sessions/{session}/events", json=body) as response:
        answer = await response.json()
    assert (response.status, answer["error"]["type"]) == (400, "invalid_request_error")
    kind = "image" if block["type"] == "image" else "pdf"
    for word in (BLIND, "events.0.content.1", kind):
        assert word in answer["error"]["message"]
    assert await raw.events(session) == []
    assert await raw.status(session) == "idle"


@pytest.mark.parametrize(
    "block",
    [
        document(type="text", media_type="text/plain", data=f"the secret is {WORDS}"),
        document(
            type="base64",
            media_type="text/plain",
            data=base64.b64encode(f"the secret is {WORDS}".encode()).decode(),
        ),
    ],
    ids=["text", "base64"],
)
async def test_a_text_document_reaches_any_model(
    raw: RawClient, gateway: DemoGateway, block: dict[str, Any]
) -> None:
    """Its text and its title are in the model request, whatever the model takes."""
    session = await raw.new_session(model=BLIND)
    turn = await run(raw, session, text(f"[[say: read it]] {session}"), block)
    assert text_of(turn) == "read it"
    asked = json.dumps(asked_with(gateway, session)["messages"][-1], ensure_ascii=False)
    assert f"the secret is {WORDS}" in asked
    assert "notes.txt" in asked


@pytest.mark.parametrize(
    "content",
    [
        [],
        [{"type": "redacted"}],
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?!"}}],
        [{"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}],
        [{"type": "video"}],
        [{"type": "text"}],
    ],
    ids=["empty", "redacted", "not base64", "not http", "unknown", "no text"],
)
async def test_broken_content_is_refused(raw: RawClient, content: list[dict[str, Any]]) -> None:
    """400 in the envelope, and no event."""
    session = await raw.new_session()
    body = {"events": [user_message("fine"), {"type": "user.message", "content": content}]}
    async with raw.http.post(f"/v1/sessions/{session}/events", json=body) as response:
        answer = await response.json()
    assert (response.status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert await raw.events(session) == []


@pytest.mark.parametrize("model", ["openai/gpt-4o", "claude-sonnet-4-5"], ids=["openai", "claude"])
async def test_text_of_any_language_survives_any_chunking(
    raw: RawClient, gateway: DemoGateway, model: str
) -> None:
    """In, out, through a shell and through previews; the reader checks that frames are ASCII."""
    session = await raw.new_session(model=model)
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, f"[[slow: 6x0.02 {WORDS}]]")
        told = await reader.until("session.status_idle")
        await raw.send(session, f"[[bash: printf '{WORDS}']]")
        shown = await reader.until("session.status_idle")
    expected = "".join(f"{WORDS}{n} " for n in range(1, 7)).rstrip()
    assert text_of(told).rstrip() == expected
    deltas = [e["delta"]["content"]["text"] for e in plain(told, "event_delta")]
    assert expected.startswith("".join(deltas))
    assert len(deltas) > 1
    assert plain(shown, "agent.tool_use")[0]["input"] == {"command": f"printf '{WORDS}'"}
    assert plain(shown, "agent.tool_result")[0]["content"][0]["text"] == WORDS
    assert asked_with(gateway, WORDS)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "claude-sonnet-4-5"], ids=["openai", "claude"])
async def test_repeated_tokens_are_not_lost(raw: RawClient, model: str) -> None:
    """Forty equal chunks are forty equal pieces of the text, in the previews as well."""
    session = await raw.new_session(model=model)
    async with raw.stream(session, "?event_deltas[]=agent.message") as reader:
        await raw.send(session, "[[repeat: ha 40]]")
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "ha" * 40
    deltas = [e["delta"]["content"]["text"] for e in plain(turn, "event_delta")]
    assert ("ha" * 40).startswith("".join(deltas))


@pytest.mark.parametrize("model", ["house-model", "claude-sonnet-4-5"], ids=["openai", "claude"])
async def test_thinking_never_leaks(raw: RawClient, model: str) -> None:
    """What the model thinks is an event without content: not in the text, the previews, the list."""
    session = await raw.new_session(model=model)
    async with raw.stream(
        session, "?event_deltas[]=agent.message&event_deltas[]=agent.thinking"
    ) as reader:
        await raw.send(session, "[[think: be quiet]][[say: aloud]]")
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "aloud"
    (thinking,) = plain(turn, "agent.thinking")
    assert set(thinking) == {"id", "type", "processed_at"}
    starts = {e["event"]["id"]: e["event"]["type"] for e in plain(turn, "event_start")}
    assert starts[thinking["id"]] == "agent.thinking"
    assert {e["event_id"] for e in plain(turn, "event_delta")}.isdisjoint({thinking["id"]})
    said = [e for e in [*turn, *await raw.events(session)] if e["type"] != "user.message"]
    assert "quiet" not in json.dumps(said)
    assert types_of(turn).index("agent.thinking") < types_of(turn).index("agent.message")
