"""What the design takes for granted of config, directories and start-up."""

from __future__ import annotations

import asyncio
import json
import time

from sidecar.compat.bench import LATE_MODEL, MODEL, CompatBench, expect
from sidecar.errors import ChildError
from sidecar.naming import GATEWAY_PROVIDER
from sidecar.opencode.environment import PINNED_VERSION
from sidecar.opencode.provider import ModelEntry

_LOAD_SECONDS = 15.0
"""A load takes half a second; one that waits for npm without a network 70."""

ROUTES = frozenset(
    {
        *("GET /global/health", "GET /global/event", "POST /global/dispose"),
        *("GET /config/providers", "GET /mcp", "POST /mcp", "POST /instance/dispose"),
        *("POST /session", "GET /session/status", "GET /session/{}", "PATCH /session/{}"),
        *("DELETE /session/{}", "POST /session/{}/prompt_async", "POST /session/{}/abort"),
        *(
            "GET /session/{}/message",
            "POST /permission/{}/reply",
            "POST /sync/replay",
            "POST /question/{}/reject",
        ),
    }
)
"""Every route that `sidecar.opencode.client` uses."""


async def version(bench: CompatBench) -> None:
    """It is the version that all this was measured with."""
    found = bench.supervisor.version
    expect(found == PINNED_VERSION, f"version {found}, pinned is {PINNED_VERSION}")


async def routes(bench: CompatBench) -> None:
    """`GET /doc` declares every route that we use; the forwarded API is cut out of it too."""
    paths = (await bench.client.doc()).get("paths", {})
    declared = {
        f"{method.upper()} {'/'.join('{}' if s.startswith('{') else s for s in path.split('/'))}"
        for path, methods in paths.items()
        for method in methods
    }
    expect(declared >= ROUTES, f"not declared: {', '.join(sorted(ROUTES - declared))}")


async def first_load_is_quick(bench: CompatBench) -> None:
    """With a seeded config directory the first load does not wait for npm."""
    began = time.monotonic()
    await bench.client.mcp_status(bench.directory())
    seconds = time.monotonic() - began
    expect(seconds < _LOAD_SECONDS, f"the load took {seconds:.0f} s")


async def nothing_was_installed(bench: CompatBench) -> None:
    """After all that work npm has put nothing into the seeded config directory."""
    modules = bench.files.xdg("config") / "opencode" / "node_modules"
    installed = await asyncio.to_thread(lambda: sorted(p.name for p in modules.iterdir()))
    expect(not installed, f"npm installed {', '.join(installed)}")


async def only_our_provider(bench: CompatBench) -> None:
    """With `OPENCODE_MODELS_PATH` naming `{}`, and one provider enabled, only our models exist."""
    found = await bench.models_in(bench.directory())
    expect(found == {GATEWAY_PROVIDER: {MODEL}}, f"providers and models are {found}")


async def references_are_resolved(bench: CompatBench) -> None:
    """`{env:...}` in the config becomes the relay's address and token, so no key is in the file."""
    prompt = await bench.prompt("[[say: here]]")
    await prompt.idle()
    expect(prompt.text == "here", f"the answer was {prompt.text!r}: the relay was not reached")
    text = await asyncio.to_thread(bench.files.config_file.read_text)
    expect(bench.gateway.url not in text, "the address is in the file")


async def config_is_read_per_directory(bench: CompatBench) -> None:
    """The config file is read when a directory is loaded, and not again before it is disposed."""
    old = bench.directory()
    await bench.models_in(old)
    await bench.config_file.register({name: ModelEntry(name) for name in (MODEL, LATE_MODEL)})
    stale = (await bench.models_in(old))[GATEWAY_PROVIDER]
    expect(stale == {MODEL}, f"a loaded directory has {stale}")
    fresh = (await bench.models_in(bench.directory()))[GATEWAY_PROVIDER]
    expect(fresh == {MODEL, LATE_MODEL}, f"a new directory has {fresh}")
    await bench.client.dispose(old)
    again = (await bench.models_in(old))[GATEWAY_PROVIDER]
    expect(again == {MODEL, LATE_MODEL}, f"after a dispose it has {again}")


async def dispose_reaches_one_directory(bench: CompatBench) -> None:
    """Disposing a directory leaves the turns of all others, and the stream of events, alone."""
    other = bench.directory()
    await bench.client.mcp_status(other)
    reconnects = bench.pump.reconnects
    running = await bench.prompt("[[slow: 15x0.1 tick]]")
    await running.first("message.part.delta")
    await bench.client.dispose(other)
    await running.idle()
    expect(len(running.text.split()) == 15, f"the running turn said {running.text!r}")
    expect("session.error" not in running.types, "the running turn got an error")
    expect(bench.pump.reconnects == reconnects, "/global/event ended")


async def project_config_is_ignored(bench: CompatBench) -> None:
    """With `OPENCODE_DISABLE_PROJECT_CONFIG` a file in a workspace adds no provider."""
    directory = bench.directory()
    rogue = {
        "enabled_providers": ["rogue", GATEWAY_PROVIDER],
        "provider": {
            "rogue": {"npm": "@ai-sdk/openai-compatible", "models": {"m": {"name": "m"}}},
        },
    }
    await asyncio.to_thread((directory / "opencode.json").write_text, json.dumps(rogue))
    found = await bench.models_in(directory)
    expect(set(found) == {GATEWAY_PROVIDER}, f"providers are {sorted(found)}")


async def broken_config_is_400(bench: CompatBench) -> None:
    """A broken config is a 400 at the load of that directory; others load once the file is whole."""
    await asyncio.to_thread(bench.files.config_file.write_text, '{"provider": ')
    try:
        await bench.client.mcp_status(bench.directory())
    except ChildError as error:
        status = error.upstream_status
    else:
        status = 200
    finally:
        await bench.config_file.rewrite()
    expect(status == 400, f"the load answered {status}")
    await bench.client.mcp_status(bench.directory())
