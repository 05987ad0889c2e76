"""`opencode-sidecar models` as a process of its own, against fakes on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.demo_gateway import DemoGateway
from tests import program
from tests.fakes.anthropic_api import AnthropicApi, Fault, anthropic_model
from tests.fakes.cursor_api import CursorApi
from tests.fakes.small_sidecar import small_settings
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, sidecar_for

NOBODY = "http://127.0.0.1:9"

ServeFake = Callable[[Any], Awaitable[str]]


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    started = DemoGateway(key=GATEWAY_KEY)
    await started.start()
    yield started
    await started.close()


@pytest.fixture
async def serve() -> AsyncIterator[ServeFake]:
    """Serve a fake; return its URL."""
    async with AsyncExitStack() as stack:

        async def start(fake: Any) -> str:
            server = await stack.enter_async_context(TestServer(fake.app()))
            return str(server.make_url("/")).rstrip("/")

        yield start


async def models(home: Path, *arguments: str, **variables: str) -> program.Done:
    return await program.sidecar("models", *arguments, home=home, **variables)


async def test_the_gateways_models_with_the_source_of_each_number(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """JSON has limits, prices and, per field, which of the gateway's lists said it."""
    done = await models(
        tmp_path,
        "--json",
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY=GATEWAY_KEY,
        SIDECAR_GATEWAY_OVERRIDES='{"openai/gpt-4o": {"max_input_tokens": 99}}',
    )
    by_id = {row["id"]: row for row in done.json["models"]}

    assert done.code == 0
    assert "text-embedding-3-small" not in by_id
    sonnet = by_id["claude-sonnet-4-5"]
    assert (sonnet["max_input_tokens"], sonnet["max_output_tokens"]) == (200_000, 64_000)
    assert sonnet["sources"]["max_input_tokens"] == "model_info"
    assert sonnet["output_cost_per_token"] == 1.5e-05
    assert by_id["openai/gpt-4o"]["max_input_tokens"] == 99
    assert by_id["openai/gpt-4o"]["sources"]["max_input_tokens"] == "override"
    assert by_id["house-model"]["max_input_tokens"] is None
    assert done.json["runtimes"]["opencode"]["status"] == "ok"


async def test_the_table_has_one_line_per_model_when_piped(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """A pipe gets each model on one line with its numbers; hidden ones are only counted."""
    done = await models(tmp_path, LITELLM_BASE_URL=gateway.url, LITELLM_API_KEY=GATEWAY_KEY)
    (line,) = [line for line in done.out.splitlines() if line.startswith("claude-sonnet-4-5")]

    assert line.split() == [
        *("claude-sonnet-4-5", "claude-sonnet-4-5", "200,000", "info", "64,000", "info"),
        *("tools", "reasoning", "image", "info", "3/15", "info"),
    ]
    assert "dall-e-3" not in done.out
    assert "2 more are hidden" in done.err


async def test_hidden_models_say_why(gateway: DemoGateway, tmp_path: Path) -> None:
    """`--hidden` adds what the list leaves out, each with the rule that hid it."""
    done = await models(
        tmp_path,
        *("--hidden", "--json"),
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY=GATEWAY_KEY,
        SIDECAR_GATEWAY_EXCLUDE="ollama/*",
    )
    hidden = {row["id"]: row["hidden_because"] for row in done.json["models"] if not row["listed"]}

    assert hidden == {
        "dall-e-3": "mode image_generation",
        "ollama/qwen3:8b": "excluded by SIDECAR_GATEWAY_EXCLUDE",
        "text-embedding-3-small": "mode embedding",
    }


async def test_without_a_gateway_the_demo_one_is_shown_and_named(tmp_path: Path) -> None:
    """A newcomer sees models at once, and reads that they are not real."""
    done = await models(tmp_path)

    assert done.code == 0
    assert "openai/gpt-4o-mini" in done.out
    assert "DEMO gateway" in done.err


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "word"),
    [
        ((), {"LITELLM_BASE_URL": NOBODY}, 3, "cannot be used"),
        ((), {"SIDECAR_BASE_URL": NOBODY}, 3, "cannot reach"),
        (("--runtime", "cursor"), {}, 2, "CURSOR_API_KEY"),
        (("--runtime", "cursr"), {}, 2, "cursor"),
        (("--all", "--runtime", "cursor"), {}, 2, "exclude"),
        ((), {"SIDECAR_GATEWY_INCLUDE": "x"}, 2, "SIDECAR_GATEWAY_INCLUDE"),
        ((), {"LITELLM_BASE_URL": "ftp://x"}, 2, "LITELLM_BASE_URL"),
    ],
)
async def test_what_cannot_work_has_its_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], code: int, word: str
) -> None:
    """Unreachable is 3, a wrong option or setting 2; one line on stderr says what to do."""
    done = await models(tmp_path, *arguments, **variables)

    assert done.code == code, done
    assert word in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""


async def test_a_refused_key_is_4_and_never_shown(gateway: DemoGateway, tmp_path: Path) -> None:
    """The gateway's refusal has a code of its own; with --json the failure is JSON too."""
    key = "sk-wrong-key-of-the-tests"
    done = await models(tmp_path, "--json", LITELLM_BASE_URL=gateway.url, LITELLM_API_KEY=key)

    assert done.code == 4
    assert done.json["error"]["exit_code"] == 4
    assert key not in done.out + done.err


async def test_a_runtime_by_its_key_from_a_file(serve: ServeFake, tmp_path: Path) -> None:
    """`--runtime cursor` asks Cursor itself; its key may come from a file as for the server."""
    fake = CursorApi()
    file = tmp_path / "cursor-key"
    file.write_text(f"{fake.key}\n")
    done = await models(
        tmp_path,
        *("--runtime", "cursor", "--json"),
        CURSOR_BASE_URL=await serve(fake),
        CURSOR_API_KEY_FILE=str(file),
    )

    assert [(r["id"], r["runtime"]) for r in done.json["models"]] == [
        ("claude-4.5-opus-high-thinking", "cursor"),
        ("gpt-5.2", "cursor"),
    ]


async def test_a_runtime_whose_key_only_the_sidecar_holds(tmp_path: Path) -> None:
    """Without a key of its own the command asks the sidecar for that runtime's list, with its key."""
    asked = []

    async def list_models(request: web.Request) -> web.Response:
        asked.append((request.query.get("runtime"), request.headers.get("x-api-key")))
        return web.json_response({"data": [{"type": "model", "id": "gpt-5.2"}], "has_more": False})

    app = web.Application()
    app.router.add_get("/v1/models", list_models)
    async with TestServer(app) as server:
        done = await models(
            tmp_path,
            *("--runtime", "cursor", "--json"),
            SIDECAR_BASE_URL=str(server.make_url("/")),
            SIDECAR_API_KEY="key-of-the-sidecar",
        )

    assert [(r["id"], r["runtime"]) for r in done.json["models"]] == [("gpt-5.2", "cursor")]
    assert asked == [("cursor", "key-of-the-sidecar")]


@pytest.fixture
async def sidecar(gateway: DemoGateway, tmp_path: Path) -> AsyncIterator[str]:
    """A sidecar that has the gateway's key and no other; its URL."""
    async with sidecar_for(small_settings(tmp_path, gateway.url), is_ready=False) as running:
        await running.catalogue.refresh()
        yield running.url


async def test_all_through_a_sidecar_without_other_keys(sidecar: str, tmp_path: Path) -> None:
    """What is not configured there is shown as such and does not make the command fail."""
    done = await models(tmp_path, "--all", "--json", "--url", sidecar, SIDECAR_API_KEY=RUNTIME_KEY)
    told = {name: entry["status"] for name, entry in done.json["runtimes"].items()}

    assert done.code == 0
    assert told == {
        "opencode": "ok",
        "anthropic": "unconfigured",
        "cursor": "unconfigured",
        "gemini": "unconfigured",
    }


async def test_one_runtime_that_neither_side_has_a_key_for(sidecar: str, tmp_path: Path) -> None:
    """The same exit code as without a sidecar, and the variable to set."""
    done = await models(
        tmp_path, "--runtime", "cursor", "--url", sidecar, SIDECAR_API_KEY=RUNTIME_KEY
    )

    assert done.code == 2
    assert "CURSOR_API_KEY" in done.err
    assert len(done.err.strip().splitlines()) == 1


async def test_all_runtimes_keep_failures_apart(
    gateway: DemoGateway, serve: ServeFake, tmp_path: Path
) -> None:
    """`--all` shows what could be had, says what failed and what is not configured, and exits with 1."""
    broken = CursorApi()
    broken.faults.extend([Fault(403, '{"message": "no"}')] * 4)
    working = AnthropicApi(models=[anthropic_model("claude-x")])
    done = await models(
        tmp_path,
        *("--all", "--json"),
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY=GATEWAY_KEY,
        CURSOR_BASE_URL=await serve(broken),
        CURSOR_API_KEY=broken.key,
        ANTHROPIC_BASE_URL=await serve(working),
        ANTHROPIC_API_KEY=working.key,
    )
    told = {name: entry["status"] for name, entry in done.json["runtimes"].items()}

    assert done.code == 1
    assert told == {
        "opencode": "ok",
        "anthropic": "ok",
        "cursor": "error",
        "gemini": "unconfigured",
    }
    assert {r["runtime"] for r in done.json["models"]} == {"opencode", "anthropic"}
    claude = next(r for r in done.json["models"] if r["id"] == "claude-x")
    assert claude["supports_reasoning"] is True
    assert claude["input_modalities"][0] == "text"


async def test_names_cannot_drive_the_terminal(serve: ServeFake, tmp_path: Path) -> None:
    """Escape sequences and markup in a vendor's names are shown without effect."""
    fake = CursorApi(items=[{"id": "evil", "displayName": "a\x1b]0;pwned\x07[red]b[/red]"}])
    done = await models(
        tmp_path,
        *("--runtime", "cursor"),
        CURSOR_BASE_URL=await serve(fake),
        CURSOR_API_KEY=fake.key,
    )

    assert "\x1b" not in done.out
    assert "[red]b[/red]" in done.out


async def test_a_sidecar_behind_the_company_proxy_is_asked(
    serve: ServeFake, tmp_path: Path
) -> None:
    """The vendor's host does not resolve here: only the proxy can have answered. A proxy that is not
    supported is named."""
    proxy = await serve(AnthropicApi(key="sk-ant", models=[anthropic_model("claude-one")]))
    variables = {
        "ANTHROPIC_API_KEY": "sk-ant",
        "ANTHROPIC_BASE_URL": "http://anthropic.invalid",
        "NO_PROXY": "elsewhere.invalid",
    }
    done = await models(tmp_path, "--runtime", "anthropic", "--json", HTTP_PROXY=proxy, **variables)
    assert done.code == 0, done
    assert "claude-one" in done.out

    for asked in (("--all",), ("--runtime", "anthropic")):
        refused = await models(tmp_path, *asked, HTTP_PROXY="socks5://user:pw@x:1", **variables)
        assert refused.code == 2, refused
        assert "HTTP_PROXY" in refused.err
        assert "pw@" not in refused.err
