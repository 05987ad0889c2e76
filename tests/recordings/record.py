"""Record what the real opencode sends in named situations: `python tests/recordings/record.py [name...]`.

Run from the project's root. Each situation gets a session in a directory of its own, a fresh demo gateway
stands behind it, and everything `/global/event` says about that directory goes to
`tests/recordings/opencode/<name>.jsonl`, durable copies (`payload.type == "sync"`) and heartbeats left out.
Lines: `{"t": seconds, "action": ...}` for what we did, `{"t": seconds, "event": frame}` for what came, and at
the end `{"t": seconds, "messages": [...], "status": {...}}`: what a repair would read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.naming import ModelRef
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import AGENT, ConfigFile
from sidecar.opencode.environment import ChildFiles, RelayAccess, build_environment
from sidecar.opencode.executable import find_binary
from sidecar.opencode.provider import Costs, ModelEntry
from sidecar.processes.process import ChildProcess
from tests.recordings.mcp_server import McpServer

TARGET = Path(__file__).with_name("opencode")
PASSWORD = "recording"
PORT = 14199
NOISE = ("sync", "server.heartbeat", "plugin.", "catalog.", "reference.", "integration.")
"""Durable copies, and what every first prompt of a directory causes."""
ASK = [{"permission": "bash", "pattern": "*", "action": "ask"}]
MODELS = {
    "chat-model": ModelEntry("chat-model", supports_reasoning=True, costs=Costs(1.0, 4.0)),
    "messages-model": ModelEntry(
        "messages-model", supports_reasoning=True, costs=Costs(1.0, 4.0), wire="messages"
    ),
}


class Recorder:
    """One situation: a session, its directory, the frames so far, and waiting for one of them."""

    def __init__(self, client: ChildClient, root: Path, name: str) -> None:
        self.client = client
        self.directory = (root / name).resolve()
        self.directory.mkdir()
        self.lines: list[dict[str, Any]] = []
        self.session_id = ""
        self._began = time.monotonic()
        self._news = asyncio.Condition()

    def note(self, **what: Any) -> None:
        """Append a line."""
        self.lines.append({"t": round(time.monotonic() - self._began, 3), **what})

    async def feed(self, frame: dict[str, Any]) -> None:
        """Take a frame of the global stream."""
        if frame.get("directory") != str(self.directory):
            return
        self.note(event=frame)
        async with self._news:
            self._news.notify_all()

    async def until(
        self, wanted: Callable[[dict[str, Any]], bool], count: int = 1
    ) -> dict[str, Any]:
        """Wait for the `count`-th payload that is wanted."""

        def found() -> list[dict[str, Any]]:
            payloads = [line["event"]["payload"] for line in self.lines if "event" in line]
            return [p for p in payloads if wanted(p)]

        async with self._news, asyncio.timeout(90):
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()[count - 1]

    async def idle(self, count: int = 1) -> None:
        """Wait for the session's idle, then until what comes after it has come."""
        await self.until(
            lambda p: (
                p["type"] == "session.idle" and p["properties"].get("sessionID") == self.session_id
            ),
            count,
        )
        await self.quiet()

    async def quiet(self, seconds: float = 1.0) -> None:
        """Wait until nothing has come for a while."""
        seen = -1
        while seen != len(self.lines):
            seen = len(self.lines)
            await asyncio.sleep(seconds)

    async def open(self, **session: Any) -> None:
        """Create the session."""
        self.session_id = await self.client.create_session(
            self.directory, title="recording", **session
        )
        self.note(action="create_session", session_id=self.session_id, **session)

    async def prompt(
        self, text: str, *, model: str = "chat-model", agent: str = AGENT, number: int = 1
    ) -> None:
        """Send a user message."""
        message_id = f"msg_0recorded{self.directory.name.replace('-', '')}{number}"
        self.note(action="prompt_async", message_id=message_id, model=model, text=text)
        await self.client.prompt_async(
            self.session_id,
            message_id=message_id,
            model=ModelRef("litellm", model),
            agent=agent,
            system="You are the recorded session.",
            parts=[{"type": "text", "text": text}],
        )

    async def save(self, path: Path, root: Path) -> None:
        """Write the lines, with this machine's paths taken out."""
        messages = await self.client.messages(self.session_id)
        self.note(messages=messages, status=await self.client.session_status(self.directory))
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        path_text = str(root.resolve())
        text = text.replace(path_text, "/workspaces").replace(path_text[1:], "workspaces")
        path.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:4000", text), encoding="utf-8")


Situation = Callable[[Recorder], Awaitable[None]]
SITUATIONS: dict[str, Situation] = {}


def situation(function: Situation) -> Situation:
    """Register a situation under its function's name."""
    SITUATIONS[function.__name__.replace("_", "-")] = function  # type: ignore[attr-defined]  # functions
    return function


def turn(name: str, text: str, **prompt: Any) -> None:
    """Register the simple case: one prompt, wait for idle."""

    async def run(lab: Recorder) -> None:
        await lab.open()
        await lab.prompt(text, **prompt)
        await lab.idle()

    SITUATIONS[name] = run


turn("text", "[[slow: 5x0.1 word]]")
turn("text-messages-wire", "[[slow: 5x0.1 word]]", model="messages-model")
turn(
    "bash", "[[say: Let me look.]] [[bash: echo one; sleep 0.3; echo two]] [[then]] [[say: Done.]]"
)
turn(
    "bash-messages-wire",
    "[[say: Let me look.]] [[bash: echo one]] [[then]] [[say: Done.]]",
    model="messages-model",
)
turn(
    "bash-fails",
    "[[bash: echo out; echo err >&2; exit 3]] [[then]] [[say: It failed.]]",
)
turn(
    "parallel-tools",
    '[[tools: bash {"command": "sleep 0.4; echo slow", "description": "Slow"} ;; '
    'bash {"command": "echo quick", "description": "Quick"}]] [[then]] [[say: Both done.]]',
)
turn("tool-invalid-input", '[[tool: bash {"cmd": 1}]] [[then]] [[say: Sorry.]]')
turn(
    "tool-read-error", '[[tool: read {"filePath": "/nonexistent/x"}]] [[then]] [[say: Not there.]]'
)
turn("reasoning", "[[think: First I think about it.]] [[say: Then I speak.]]")
turn(
    "reasoning-messages-wire",
    "[[think: First I think about it.]] [[say: Then I speak.]]",
    model="messages-model",
)
turn("error-400", "[[error: 400]]")
turn("error-401", "[[error: 401]]")
turn("error-429-then-ok", "[[error: 429 x1]] [[say: Better now.]]")
turn("error-500-then-ok", "[[error: 500 x1]] [[say: Better now.]]")
turn("error-after-tool", "[[bash: echo one]] [[then]] [[error: 400]]")
turn("upstream-cut", "[[say: Half a sen]] [[cut]]")
turn("refusal", "[[say: I cannot]] [[refuse]]")
turn("unknown-model", "[[say: hi]]", model="ghost/model")
turn(
    "subagent",
    '[[tool: task {"description": "Look", "prompt": "[[say: Found it.]]", "subagent_type": "general"}]]'
    " [[then]] [[say: The helper found it.]]",
)


@situation
async def error_500_exhausted(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[error: 500]]")
    await lab.until(
        lambda p: p["type"] == "session.status" and p["properties"]["status"]["type"] == "retry", 3
    )
    await lab.client.abort(lab.session_id)
    lab.note(action="abort")
    await lab.idle()


@situation
async def unknown_agent(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[say: hi]]", agent="ghost")
    await lab.until(lambda p: p["type"] == "session.error", 2)
    await lab.quiet()


@situation
async def cut_after_text(lab: Recorder) -> None:
    """The upstream drops the connection in the middle of a text: what becomes of the half, then abort."""
    await lab.open()
    await lab.prompt("[[slow: 4x0.2 half]] [[cut]]")
    await lab.until(
        lambda p: p["type"] == "session.status" and p["properties"]["status"]["type"] == "retry", 2
    )
    await lab.client.abort(lab.session_id)
    lab.note(action="abort")
    await lab.idle()


async def _with_mcp(lab: Recorder, prompt: str, **session: Any) -> McpServer:
    server = McpServer()
    await server.start()
    config = {"type": "remote", "url": server.url, "headers": {"x-test": "1"}, "oauth": False}
    statuses = await lab.client.add_mcp(lab.directory, "my-server", config)
    lab.note(action="add_mcp", name="my-server", statuses=statuses)
    await lab.open(**session)
    await lab.prompt(prompt)
    return server


@situation
async def mcp_tool(lab: Recorder) -> None:
    server = await _with_mcp(
        lab, '[[tool: my-server_echo {"text": "hello"}]] [[then]] [[say: It said hello.]]'
    )
    await lab.idle()
    await server.close()


@situation
async def mcp_tool_fails(lab: Recorder) -> None:
    server = await _with_mcp(
        lab, '[[tool: my-server_boom {"text": "no luck"}]] [[then]] [[say: It failed.]]'
    )
    await lab.idle()
    await server.close()


@situation
async def mcp_permission(lab: Recorder) -> None:
    server = await _with_mcp(
        lab,
        '[[tool: my-server_echo {"text": "hello"}]] [[then]] [[say: It said hello.]]',
        permission=[{"permission": "my-server_*", "pattern": "*", "action": "ask"}],
    )
    asked = await lab.until(lambda p: p["type"] == "permission.asked")
    lab.note(action="reply_permission", reply="once")
    await lab.client.reply_permission(asked["properties"]["id"], lab.directory, reply="once")
    await lab.idle()
    await server.close()


async def _asked(lab: Recorder, **reply: Any) -> None:
    await lab.open(permission=ASK)
    await lab.prompt("[[bash: echo one]] [[then]] [[say: Done.]]")
    asked = await lab.until(lambda p: p["type"] == "permission.asked")
    await lab.quiet(0.3)
    lab.note(action="reply_permission", **reply)
    await lab.client.reply_permission(asked["properties"]["id"], lab.directory, **reply)
    await lab.idle()


@situation
async def permission_allow(lab: Recorder) -> None:
    await _asked(lab, reply="once")


@situation
async def permission_reject(lab: Recorder) -> None:
    await _asked(lab, reply="reject")


@situation
async def permission_reject_message(lab: Recorder) -> None:
    await _asked(lab, reply="reject", message="Not on Fridays.")


@situation
async def permission_parallel(lab: Recorder) -> None:
    await lab.open(permission=ASK)
    await lab.prompt(
        '[[tools: bash {"command": "echo a", "description": "A"} ;; '
        'bash {"command": "echo b", "description": "B"}]] [[then]] [[say: Done.]]'
    )
    second = await lab.until(lambda p: p["type"] == "permission.asked", 2)
    first = await lab.until(lambda p: p["type"] == "permission.asked", 1)
    await lab.quiet(0.3)
    for asked, reply in (
        (second, {"reply": "once"}),
        (first, {"reply": "reject", "message": "no"}),
    ):
        lab.note(action="reply_permission", permission_id=asked["properties"]["id"], **reply)
        await lab.client.reply_permission(asked["properties"]["id"], lab.directory, **reply)
    await lab.idle()


@situation
async def permission_abort(lab: Recorder) -> None:
    await lab.open(permission=ASK)
    await lab.prompt("[[bash: echo one]] [[then]] [[say: Done.]]")
    await lab.until(lambda p: p["type"] == "permission.asked")
    lab.note(action="abort")
    await lab.client.abort(lab.session_id)
    await lab.idle()


@situation
async def permission_deny_rule(lab: Recorder) -> None:
    await lab.open(permission=[{"permission": "bash", "pattern": "*", "action": "deny"}])
    await lab.prompt("[[bash: echo one]] [[then]] [[say: Done.]]")
    await lab.idle()


@situation
async def permission_deny_pattern(lab: Recorder) -> None:
    await lab.open(permission=[{"permission": "bash", "pattern": "rm *", "action": "deny"}])
    await lab.prompt("[[bash: rm -f x]] [[then]] [[say: Done.]]")
    await lab.idle()


@situation
async def abort_in_text(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[slow: 100x0.1 word]]")
    await lab.until(lambda p: p["type"] == "message.part.delta", 5)
    lab.note(action="abort")
    await lab.client.abort(lab.session_id)
    await lab.idle()


@situation
async def abort_in_tool(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[bash: echo started; sleep 300]] [[then]] [[say: Done.]]")
    await lab.until(
        lambda p: (
            p["type"] == "message.part.updated"
            and "started"
            in json.dumps(p["properties"]["part"].get("state", {}).get("metadata", ""))
        )
    )
    lab.note(action="abort")
    await lab.client.abort(lab.session_id)
    await lab.idle()


@situation
async def abort_idle(lab: Recorder) -> None:
    await lab.open()
    lab.note(action="abort")
    await lab.client.abort(lab.session_id)
    await lab.quiet()


@situation
async def two_turns(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[say: First.]]")
    await lab.idle()
    await lab.prompt("[[say: Second.]]", number=2)
    await lab.idle(2)


@situation
async def prompt_while_busy(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[slow: 10x0.1 word]]")
    await lab.until(lambda p: p["type"] == "message.part.delta", 3)
    await lab.prompt("[[say: Second.]]", number=2)
    await lab.idle()


@situation
async def dispose_mid_turn(lab: Recorder) -> None:
    await lab.open()
    await lab.prompt("[[slow: 100x0.1 word]]")
    await lab.until(lambda p: p["type"] == "message.part.delta", 5)
    lab.note(action="dispose")
    await lab.client.dispose(lab.directory)
    await lab.quiet(1.5)


async def _pump(
    response: aiohttp.ClientResponse, feed: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    async for raw in response.content:
        if raw.startswith(b"data:"):
            frame = json.loads(raw[5:])
            if not frame["payload"]["type"].startswith(NOISE):
                await feed(frame)


@contextlib.asynccontextmanager
async def child(root: Path, gateway: DemoGateway) -> AsyncIterator[ChildClient]:
    """Run a real opencode against the demo gateway."""
    files = ChildFiles(root / "opencode")
    files.prepare()
    await ConfigFile(files.config_file).register(MODELS)
    environment = build_environment(
        files,
        inherited=os.environ,
        password=PASSWORD,
        relay=RelayAccess(f"{gateway.url}/v1", "relay-token"),
    )
    binary = find_binary(None, search_path=os.environ.get("PATH"))
    process = await ChildProcess.spawn(
        [
            str(binary),
            "serve",
            "--hostname",
            "127.0.0.1",
            "--port",
            str(PORT),
            "--print-logs",
            "--log-level",
            "WARN",
        ],
        env=environment,
        cwd=files.cwd,
        on_line=lambda _stream, line: print("  |", line[:300], file=sys.stderr),
    )
    try:
        async with aiohttp.ClientSession(read_bufsize=2**22) as session:
            client = ChildClient(
                base_url=f"http://127.0.0.1:{PORT}",
                password=PASSWORD,
                session=session,
                request_timeout_seconds=30,
            )
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(Exception):
                        await client.health(timeout_seconds=1)
                        break
                    await asyncio.sleep(0.1)
            yield client
    finally:
        process.kill()
        await process.wait()


async def main(names: list[str]) -> None:
    """Record the named situations, or all."""
    root = Path(tempfile.mkdtemp(prefix="record-"))
    gateway = DemoGateway(models=[DemoModel(id=model_id) for model_id in MODELS])
    await gateway.start()
    try:
        async with child(root, gateway) as client:
            response = await client.open_events()
            for name in names or SITUATIONS:
                lab = Recorder(client, root, name)
                began = time.monotonic()
                pump = asyncio.create_task(_pump(response, lab.feed))
                try:
                    await SITUATIONS[name](lab)
                    await lab.save(TARGET / f"{name}.jsonl", root)
                    print(f"{name}: {len(lab.lines)} lines, {time.monotonic() - began:.1f} s")
                except Exception as error:  # one failing situation must not cost the others
                    print(f"{name}: FAILED {error!r}")
                    for line in lab.lines[-6:]:
                        print("    ", json.dumps(line)[:400])
                finally:
                    pump.cancel()
                    await asyncio.gather(pump, return_exceptions=True)
            response.close()
    finally:
        await gateway.close()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
