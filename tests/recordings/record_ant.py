"""Records what Anthropic's command line sends: `python -m tests.recordings.record_ant PATH_OF_ANT`.

`ant` is in no registry, so it is built from its source by hand. Its commands run against a sidecar with the
real opencode; what it sends is written to tests/recordings/ant/session.json, with ids as `{agent}` and so on,
and replayed by tests/e2e/test_ant.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from sidecar.demo_gateway import DemoGateway
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, make_settings, sidecar_for

OUTPUT = Path(__file__).parent / "ant" / "session.json"
_OWN_HEADERS = ("host", "content-length", "x-api-key", "connection", "accept-encoding")
COMMANDS = [
    ["models", "list"],
    ["models", "retrieve", "--model-id", "openai/gpt-4o"],
    ["beta:agents", "create", "--name", "helper", "--model", "{{id: openai/gpt-4o}}"],
    ["beta:agents", "retrieve", "--agent-id", "{agent}"],
    ["beta:agents", "list", "--limit", "5"],
    ["beta:environments", "create", "--name", "place"],
    ["beta:sessions", "create", "--agent", "{agent}", "--environment-id", "{environment}"],
    [
        *("beta:sessions:events", "send", "--session-id", "{session}"),
        *("--event", '{{type: user.message, content: [{{type: text, text: "hello"}}]}}'),
    ],
    ["beta:sessions:events", "list", "--session-id", "{session}"],
    ["beta:sessions", "retrieve", "--session-id", "{session}"],
    ["beta:sessions", "list", "--limit", "5"],
    ["beta:sessions:events", "stream", "--session-id", "{session}"],
    ["beta:vaults", "create", "--display-name", "v"],
    ["beta:sessions", "archive", "--session-id", "{session}"],
    ["beta:agents", "archive", "--agent-id", "{agent}"],
]
_KINDS = {"agent": "agent", "env": "environment", "sesn": "session"}


async def main(ant: str) -> None:
    """Record."""
    requests: list[dict[str, Any]] = []
    ids: dict[str, str] = {}
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        settings = make_settings(Path(directory), gateway.url)
        async with sidecar_for(settings) as sidecar, aiohttp.ClientSession() as http:

            def hidden(text: str) -> str:
                for name, value in ids.items():
                    text = text.replace(value, "{" + name + "}")
                return text

            async def pass_on(request: web.Request) -> web.StreamResponse:
                body = await request.read()
                kept = {n: v for n, v in request.headers.items() if n.lower() not in _OWN_HEADERS}
                requests.append(
                    {
                        "method": request.method,
                        "path": hidden(request.path_qs),
                        "headers": kept,
                        "body": hidden(body.decode()),
                    }
                )
                headers = {**kept, "x-api-key": RUNTIME_KEY}
                async with http.request(
                    request.method, sidecar.url + request.path_qs, data=body, headers=headers
                ) as answer:
                    response = web.StreamResponse(status=answer.status)
                    response.content_type = answer.content_type
                    await response.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                    return response

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", pass_on)
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            for command in COMMANDS:
                if command[:2] == ["beta:sessions", "archive"]:
                    await _idle(http, f"{sidecar.url}/v1/sessions/{ids['session']}")
                words = [word.format(**ids) for word in command]
                process = await asyncio.create_subprocess_exec(
                    *(ant, "--base-url", url, "--format", "json", *words),
                    env={"ANTHROPIC_API_KEY": RUNTIME_KEY, "HOME": directory},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                is_stream = command[1] == "stream"
                try:
                    async with asyncio.timeout(5 if is_stream else 60):
                        output, _ = await process.communicate()
                except TimeoutError:
                    process.kill()
                    output = b""
                print(process.returncode, " ".join(words)[:100], output[:150])
                assert is_stream or process.returncode == 0, output.decode()
                if command[1] == "create":
                    made = str(json.loads(output)["id"])
                    if (kind := _KINDS.get(made.partition("_")[0])) is not None:
                        ids[kind] = made
            await runner.cleanup()
    await gateway.close()
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(requests, indent=1) + "\n")


async def _idle(http: aiohttp.ClientSession, url: str) -> None:
    """Wait for the end of the session's turn."""
    while True:
        async with http.get(url, headers={"x-api-key": RUNTIME_KEY}) as answer:
            if (await answer.json())["status"] == "idle":
                return
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
