"""The demo gateway on a real socket, read by the official SDK and by plain HTTP."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import pytest

from sidecar.demo_gateway import DemoGateway, DemoModel
from tests.waiting import PATIENCE_SECONDS

KEY = "demo-key-1"
TOOLS = [{"name": "bash", "description": "d", "input_schema": {"type": "object"}}]


@pytest.fixture
async def gateway() -> AsyncIterator[DemoGateway]:
    gateway = DemoGateway(key=KEY)
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def http(gateway: DemoGateway) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        yield session


@pytest.fixture
async def claude(gateway: DemoGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def said(text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": messages, **more}


async def frames(response: aiohttp.ClientResponse) -> list[Any]:
    text = await response.text()
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_the_official_sdk_reads_a_streamed_message(claude: anthropic.AsyncAnthropic) -> None:
    """Thinking, text and a tool call arrive as the blocks the official SDK expects."""
    text = '[[think: hm]][[say: I list the files now.]][[cached: 7]][[tool: bash {"command":"ls"}]]'
    async with claude.messages.stream(**said(text, tools=TOOLS)) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[1].text == "I list the files now."
    assert message.content[2].input == {"command": "ls"}
    assert message.stop_reason == "tool_use"
    assert message.usage.cache_read_input_tokens == 7
    assert message.usage.output_tokens == 8


async def test_streamed_and_whole_message_agree(claude: anthropic.AsyncAnthropic) -> None:
    """Without streaming the same request gives the same content and usage."""
    request = said("[[think: hm]][[say: one two]]")
    async with claude.messages.stream(**request) as stream:
        streamed = await stream.get_final_message()
    whole = await claude.messages.create(**request)
    assert [b.to_dict() for b in whole.content] == [b.to_dict() for b in streamed.content]
    assert whole.usage.output_tokens == streamed.usage.output_tokens


async def test_refusal_has_its_stop_reason(claude: anthropic.AsyncAnthropic) -> None:
    """A scripted refusal ends with Anthropic's stop reason."""
    message = await claude.messages.create(**said("[[refuse]]"))
    assert message.stop_reason == "refusal"


async def test_chat_completion_stream_has_usage_when_asked(http: aiohttp.ClientSession) -> None:
    """The usage chunk comes last and only with `stream_options.include_usage`."""
    options = {"include_usage": True}
    body = chat("[[repeat: ha 3]]", stream=True, stream_options=options)
    async with http.post("/v1/chat/completions", json=body) as response:
        with_usage = await frames(response)
    async with http.post("/v1/chat/completions", json=chat("[[repeat: ha 3]]", stream=True)) as r:
        without = await frames(r)
    deltas = [c["choices"][0]["delta"].get("content") for c in without]
    assert deltas == ["", "ha", "ha", "ha", None]
    assert with_usage[-1]["choices"] == []
    assert with_usage[-1]["usage"]["completion_tokens"] == 3
    assert not any("usage" in chunk for chunk in without)


async def test_parallel_calls_are_indexed(http: aiohttp.ClientSession) -> None:
    """Several calls in one response carry their own index and id; arguments join to JSON."""
    tools = [{"type": "function", "function": {"name": "a"}}]
    body = chat('[[tools: a {"n": 1} ;; a {"n": 2}]]', tools=tools, stream=True)
    async with http.post("/v1/chat/completions", json=body) as response:
        chunks = await frames(response)
    arguments = {0: "", 1: ""}
    ids = set()
    for chunk in chunks:
        for call in chunk["choices"][0]["delta"].get("tool_calls", []):
            arguments[call["index"]] += call["function"]["arguments"]
            ids |= {call["id"]} if "id" in call else set()
    assert [json.loads(a) for a in arguments.values()] == [{"n": 1}, {"n": 2}]
    assert len(ids) == 2
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_counted_failures_pass(http: aiohttp.ClientSession) -> None:
    """`x2` fails twice for one conversation, then answers; another conversation has its own count."""
    statuses = []
    for _ in range(3):
        body = chat("[[error: 500 x2]][[say: ok]]")
        async with http.post("/v1/chat/completions", json=body) as response:
            statuses.append(response.status)
    async with http.post(
        "/v1/chat/completions",
        json=chat("[[error: 500 x2]][[say: ok]]"),
        headers={"x-session-id": "other"},
    ) as other:
        assert other.status == 500
    assert statuses == [500, 500, 200]


async def test_faults_break_the_stream(gateway: DemoGateway, http: aiohttp.ClientSession) -> None:
    """`cut` drops the connection after the text; `hang` is silent until the caller leaves."""
    cut = chat("[[say: hi]][[cut]]", stream=True)
    async with http.post("/v1/chat/completions", json=cut) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    async with http.post("/v1/chat/completions", json=chat("[[hang]]", stream=True)) as response:
        assert response.status == 200
        await response.content.readuntil(b"\n\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.read(1), 0.1)
    await asyncio.wait_for(gateway.close(), PATIENCE_SECONDS)


async def test_non_sse_answer(http: aiohttp.ClientSession) -> None:
    """A streaming call can be made to answer plain JSON, as LiteLLM's mock does."""
    body = chat("[[say: hi]][[non-sse]]", stream=True)
    async with http.post("/v1/chat/completions", json=body) as response:
        assert response.content_type == "application/json"
        assert (await response.json())["choices"][0]["message"]["content"] == "hi"


async def test_a_page_is_no_answer(http: aiohttp.ClientSession) -> None:
    """As a load balancer sends it with status 200."""
    async with http.post("/v1/chat/completions", json=chat("[[page]]", stream=True)) as response:
        assert (response.status, response.content_type) == (200, "text/html")


async def test_lists_have_litellms_shapes(http: aiohttp.ClientSession) -> None:
    """The three sources and the Anthropic page name the same models; modes include non-chat ones."""
    async with http.get("/v1/models") as response:
        page = await response.json()
    async with http.get("/v1/models", headers={"anthropic-version": "2023-06-01"}) as response:
        anthropic_page = await response.json()
    async with http.get("/model_group/info") as response:
        groups = await response.json()
    async with http.get("/v1/model/info") as response:
        deployments = await response.json()
    ids = [item["id"] for item in page["data"]]
    assert page["object"] == "list"
    assert ids == [item["id"] for item in anthropic_page["data"]]
    assert ids == [item["model_group"] for item in groups["data"]]
    assert ids == [item["model_name"] for item in deployments["data"]]
    assert {"chat", "embedding", "image_generation"} == {item["mode"] for item in page["data"]}
    assert isinstance(groups["data"][0]["max_input_tokens"], float)


async def test_models_change_while_it_runs(
    gateway: DemoGateway, http: aiohttp.ClientSession
) -> None:
    """A model added over HTTP is listed and answers; a removed one is refused with 400."""
    async with http.post("/demo/models", json={"id": "new/model"}) as response:
        assert response.status == 200
    gateway.models["in-process"] = DemoModel(id="in-process")
    async with http.get("/v1/models") as response:
        ids = [item["id"] for item in (await response.json())["data"]]
    assert ids[-2:] == ["new/model", "in-process"]
    body = chat("hello") | {"model": "new/model"}
    async with http.post("/v1/chat/completions", json=body) as response:
        assert "new/model" in (await response.json())["choices"][0]["message"]["content"]
    async with http.delete("/demo/models/new/model") as response:
        assert response.status == 200
    async with http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 400


async def test_key_and_record(gateway: DemoGateway, http: aiohttp.ClientSession) -> None:
    """A wrong key is 401; requests are recorded, and shown over HTTP without their keys."""
    wrong = {"authorization": "Bearer nope"}
    async with http.post("/v1/messages", json=said("hi"), headers=wrong) as response:
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "authentication_error"
    headers = {"x-session-id": "ses_1"}
    async with http.post("/v1/chat/completions", json=chat("hi"), headers=headers):
        pass
    assert gateway.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert gateway.requests[-1].body["model"] == "openai/gpt-4o"
    async with http.get("/demo/requests") as response:
        text = await response.text()
    assert "ses_1" in text
    assert KEY not in text


async def test_command_line(tmp_path: Any) -> None:
    """`python -m sidecar.demo_gateway` announces its URL, serves, and ends cleanly on SIGTERM."""
    models = tmp_path / "models.json"
    models.write_text('[{"id": "only/one"}]')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar.demo_gateway", "--port", "0", "--models", str(models)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
        url = line.decode().split()[-1]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models") as response:
            assert [m["id"] for m in (await response.json())["data"]] == ["only/one"]
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
