"""What the design takes for granted of turns, tools and restarts."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sidecar.compat.bench import (
    DIRECTORY_VARIABLE,
    CompatBench,
    expect,
    is_idle,
    names_of_tools,
)

_ASK_BASH = ({"permission": "bash", "pattern": "*", "action": "ask"},)
_DENY_BASH = ({"permission": "bash", "pattern": "*", "action": "deny"},)
_SYSTEM = "You are the bench's own persona."


async def busy_then_idle(bench: CompatBench) -> None:
    """A turn is `session.status` busy, then idle; the assistant's message is complete by then."""
    prompt = await bench.prompt("[[say: one]]")
    idle = await prompt.idle()
    states = [
        event.properties["status"]["type"]
        for event in prompt.events
        if event.type == "session.status"
    ]
    expect(states[0] == "busy", f"the states were {states}")
    before = prompt.events[: prompt.events.index(idle)]
    completed = [
        e
        for e in before
        if e.type == "message.updated" and e.properties["info"].get("time", {}).get("completed")
    ]
    expect(completed, "no completed message before idle")
    busy = await bench.client.session_status(prompt.directory)
    expect(prompt.session_id not in busy, "the status list still has an idle session")


async def tool_step_is_no_end(bench: CompatBench) -> None:
    """A turn with a tool has several completed messages and one idle."""
    prompt = await bench.prompt("[[bash: echo hi]] [[then]] [[say: done]]")
    await prompt.idle()
    messages = {
        e.properties["info"]["id"]
        for e in prompt.events
        if e.type == "message.updated" and e.properties["info"]["role"] == "assistant"
    }
    idles = sum(is_idle(event) for event in prompt.events)
    expect((len(messages), idles) == (2, 1), f"{len(messages)} messages, {idles} idles")


async def shells_have_what_the_plugin_gives(bench: CompatBench) -> None:
    """Our plug-in is asked before each command, for that directory, by opencode's own process; what it sets,
    an empty value too, is the command's environment."""
    for _ in range(2):
        prompt = await bench.prompt("[[bash: env]] [[then]] [[say: done]]")
        await prompt.idle()
        (output,) = [
            part["state"]["output"]
            for message in await bench.client.messages(prompt.session_id)
            for part in message["parts"]
            if part["type"] == "tool"
        ]
        seen = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        given = {DIRECTORY_VARIABLE: str(prompt.directory), "OPENCODE_SERVER_PASSWORD": ""}
        for name, value in given.items():
            expect(seen.get(name) == value, f"{name} is {seen.get(name)!r}")


async def parent_is_our_message(bench: CompatBench) -> None:
    """Assistant messages name the `messageID` that we gave the prompt as their `parentID`."""
    prompt = await bench.prompt("[[say: child]]")
    await prompt.idle()
    parents = {
        message["info"].get("parentID")
        for message in await bench.client.messages(prompt.session_id)
        if message["info"]["role"] == "assistant"
    }
    expect(parents == {prompt.message_id}, f"the parents are {parents}")


async def session_header(bench: CompatBench) -> None:
    """Every model request carries `x-session-id`, by which the relay attributes it."""
    prompt = await bench.prompt("[[say: whose]]")
    await prompt.idle()
    expect(len(bench.asked(prompt.session_id)) == 1, "no model request named the session")


async def system_is_of_one_prompt(bench: CompatBench) -> None:
    """`system` is added to the system message of that prompt and forgotten at the next."""
    prompt = await bench.prompt("[[say: with]]", system=_SYSTEM)
    await prompt.idle()
    more = await bench.prompt(
        "[[say: without]]", directory=prompt.directory, session_id=prompt.session_id
    )
    await more.idle()
    told = [_SYSTEM in str(r.body["messages"][0]) for r in bench.asked(prompt.session_id)]
    expect(told == [True, False], f"the system message had it: {told}")


async def unknown_model(bench: CompatBench) -> None:
    """A prompt for an unknown model is taken; an event then says `Model not found: <ref>.` first."""
    prompt = await bench.prompt("[[say: never]]", model="nobody/has-it")
    error = await prompt.first("session.error")
    message = str(error.properties["error"]["data"]["message"])
    wanted = "Model not found: litellm/nobody/has-it."
    expect(message.startswith(wanted), f"the error says {message[:120]!r}")


async def abort_sequence(bench: CompatBench) -> None:
    """An abort is `session.error` MessageAbortedError, then idle; the session goes on afterwards."""
    prompt = await bench.prompt("[[slow: 100x0.1 tick]]")
    await prompt.first("message.part.delta")
    await bench.client.abort(prompt.session_id)
    idle = await prompt.idle()
    errors = [
        e.properties["error"]["name"]
        for e in prompt.events[: prompt.events.index(idle)]
        if e.type == "session.error"
    ]
    expect(errors == ["MessageAbortedError"], f"before idle came {errors}")
    more = await bench.prompt(
        "[[say: alive]]", directory=prompt.directory, session_id=prompt.session_id
    )
    await more.idle()
    expect(more.text.endswith("alive"), f"then it said {more.text!r}")


async def prompt_replaces_itself(bench: CompatBench) -> None:
    """A prompt that is sent again with the same message and part ids takes its own place."""
    prompt = await bench.prompt("[[slow: 100x0.1 tick]]")
    await prompt.first("message.part.delta")
    await bench.client.abort(prompt.session_id)
    await prompt.idle()
    again = await bench.prompt(
        "[[say: second]]",
        directory=prompt.directory,
        session_id=prompt.session_id,
        message_id=prompt.message_id,
    )
    await again.idle()
    messages = await bench.client.messages(prompt.session_id)
    asked = [m for m in messages if m["info"]["role"] == "user"]
    texts = [part["text"] for message in asked for part in message["parts"]]
    expect(texts == ["[[say: second]]"], f"the user's messages are {texts}")
    expect(again.text.endswith("second"), f"the answer is {again.text!r}")


async def permission_is_asked(bench: CompatBench) -> None:
    """A rule of the session makes a call wait for a reply; allowed, it runs."""
    prompt = await bench.prompt("[[bash: echo asked]] [[then]] [[say: ran]]", permission=_ASK_BASH)
    asked = await prompt.first("permission.asked")
    expect(asked.properties["permission"] == "bash", f"asked about {asked.properties}")
    expect("callID" in asked.properties["tool"], "the request does not name its call")
    expect(not any(map(is_idle, prompt.events)), "the turn ended while it waits")
    await bench.client.reply_permission(asked.properties["id"], prompt.directory, reply="once")
    await prompt.idle()
    expect(prompt.text.endswith("ran"), f"then it said {prompt.text!r}")


async def rejection_with_a_message(bench: CompatBench) -> None:
    """A reject with a message is an error of the tool, and the model goes on."""
    prompt = await bench.prompt("[[bash: echo no]] [[then]] [[say: went on]]", permission=_ASK_BASH)
    asked = await prompt.first("permission.asked")
    await bench.client.reply_permission(
        asked.properties["id"], prompt.directory, reply="reject", message="not today"
    )
    await prompt.idle()
    expect(prompt.text.endswith("went on"), f"then it said {prompt.text!r}")
    expect(
        "not today" in str(bench.asked(prompt.session_id)[-1].body),
        "the model did not get the reason",
    )


async def denied_tools_are_not_offered(bench: CompatBench) -> None:
    """A deny rule in `POST /session` takes the tool out of the model request."""
    prompt = await bench.prompt("[[say: tools]]", permission=_DENY_BASH)
    await prompt.idle()
    offered = names_of_tools(bench.asked(prompt.session_id)[0])
    expect("bash" not in offered, "bash is offered")
    expect("read" in offered, f"only {sorted(offered)} are offered")


async def mcp_is_added_live(bench: CompatBench) -> None:
    """`POST /mcp` connects a server to a loaded directory, its tools are `<server>_<tool>`, and a dispose
    drops it."""
    runner = web.AppRunner(_mcp_application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
        directory = bench.directory()
        entry = {"type": "remote", "url": url, "enabled": True, "oauth": False}
        statuses = await bench.client.add_mcp(directory, "lab", entry)
        expect(statuses.get("lab", {}).get("status") == "connected", f"the status is {statuses}")
        prompt = await bench.prompt(
            "[[tool: lab_echo {}]] [[then]] [[say: ok]]", directory=directory
        )
        await prompt.idle()
        expect("echoed" in str(bench.asked(prompt.session_id)[-1].body), "the tool was not called")
        await bench.client.dispose(directory)
        left = await bench.client.mcp_status(directory)
        expect("lab" not in left, "the server survived a dispose")
    finally:
        await runner.cleanup()


async def history_survives(bench: CompatBench) -> None:
    """After a restart the session has its messages, and its next prompt shows them to the model."""
    prompt = await bench.prompt("[[say: remember the quince]]")
    await prompt.idle()
    await bench.restart()
    more = await bench.prompt(
        "[[say: again]]", directory=prompt.directory, session_id=prompt.session_id
    )
    await more.idle()
    asked = str(bench.asked(prompt.session_id)[-1].body["messages"])
    expect("remember the quince" in asked, "the model was not shown what was said before")


def _mcp_application() -> web.Application:
    """A tool server with the one tool `echo`."""

    async def post(request: web.Request) -> web.Response:
        call = await request.json()
        if "id" not in call:
            return web.Response(status=202)
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": (call.get("params") or {}).get("protocolVersion"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "compat-bench", "version": "1"},
            },
            "tools/list": {
                "tools": [
                    {"name": "echo", "description": "Echoes.", "inputSchema": {"type": "object"}}
                ]
            },
            "tools/call": {"content": [{"type": "text", "text": "echoed"}]},
        }
        result = results.get(call["method"], {})
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": result})

    application = web.Application()
    application.router.add_post("/mcp", post)
    return application
