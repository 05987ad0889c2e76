"""`run` and `doctor` as people use them: the real opencode, the demo gateway, processes of their own."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests import program
from tests.harness import (
    GATEWAY_KEY,
    RUNTIME_KEY,
    http_client,
    make_settings,
    sidecar_for,
    types_of,
)
from tests.waiting import patience

MODEL = "openai/gpt-4o"


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    started = DemoGateway(key=GATEWAY_KEY)
    await started.start()
    yield started
    await started.close()


@pytest.fixture(scope="module")
async def server(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(tmp_path_factory.mktemp("data"), gateway.url)
    async with sidecar_for(settings) as sidecar:
        yield sidecar


async def run(
    home: Path, server: RunningSidecar, *arguments: str, **variables: str
) -> program.Done:
    variables |= {"SIDECAR_BASE_URL": server.url, "SIDECAR_API_KEY": RUNTIME_KEY}
    return await program.sidecar("run", *arguments, home=home, **variables)


async def test_a_terminal_that_cannot_show_everything(
    server: RunningSidecar, tmp_path: Path
) -> None:
    """What its encoding lacks becomes a question mark; the turn is not lost for it."""
    prompt = "[[say: naïve ✓ 😀]] [[bash: echo ✓]] [[then]] [[say: done]]"
    done = await run(tmp_path, server, "-m", MODEL, prompt, PYTHONIOENCODING="ascii")

    assert done.code == 0, done.err
    assert [line.rstrip() for line in done.out.splitlines()] == ["na?ve ? ?", "done"]
    assert "Traceback" not in done.err


async def test_a_prompt_through_a_running_sidecar(server: RunningSidecar, tmp_path: Path) -> None:
    """The answer, and nothing else, is on stdout; the tool call and its result are on stderr."""
    prompt = "[[say: I look.]] [[bash: echo from-the-tool]] [[then]] [[slow: 3x0.05 tick]]"
    done = await run(tmp_path, server, "-m", MODEL, prompt)

    assert done.code == 0, done.err
    assert [line.rstrip() for line in done.out.splitlines()] == ["I look.", "tick1 tick2 tick3"]
    assert "bash echo from-the-tool" in done.err
    assert done.err.count("from-the-tool") == 2


async def test_nothing_is_left_on_the_server(server: RunningSidecar, tmp_path: Path) -> None:
    """Session and environment are deleted and the agent is archived, unless asked to keep them."""
    async with http_client(server.url) as http:

        async def count(kind: str) -> int:
            async with http.get(f"/v1/{kind}") as response:
                return len((await response.json())["data"])

        before = {kind: await count(kind) for kind in ("agents", "environments", "sessions")}
        await run(tmp_path, server, "[[say: x]]")
        after = {kind: await count(kind) for kind in before}
        kept = await run(tmp_path, server, "--keep", "[[say: x]]")

        assert after == before
        assert kept.code == 0
        assert await count("sessions") == before["sessions"] + 1


async def test_json_lines(server: RunningSidecar, tmp_path: Path) -> None:
    """Each event is a line, and the last line is the result with session, model and usage."""
    done = await run(
        tmp_path, server, "--json", "-m", MODEL, "--system", "Be brief.", "[[say: hi]]"
    )
    *events, result = [json.loads(line) for line in done.out.splitlines()]

    assert types_of(events)[-1] == "session.status_idle"
    assert "agent.message" in types_of(events)
    assert not {"event_start", "event_delta"} & set(types_of(events))
    assert result["type"] == "run.result"
    assert (result["ok"], result["exit_code"], result["stop_reason"]) == (True, 0, "end_turn")
    assert (result["model"], result["error"]) == (MODEL, None)
    assert result["session_id"].startswith("sesn_")


async def test_a_failed_turn_is_1(server: RunningSidecar, tmp_path: Path) -> None:
    """A gateway that refuses the request ends the turn with its reason and exit code 1."""
    done = await run(tmp_path, server, "-m", MODEL, "[[error: 400]]")

    assert done.code == 1
    assert "✗" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("-m", "openai/gpt-4", "x"), 2, "openai/gpt-4o"),
        (("  ",), 2, "empty"),
        (("--data-dir", "/nowhere", "x"), 2, "--data-dir"),
    ],
)
async def test_what_cannot_run_is_2(
    server: RunningSidecar, tmp_path: Path, arguments: tuple[str, ...], code: int, word: str
) -> None:
    """An unknown model names near matches; a prompt must hold something; options must fit."""
    done = await run(tmp_path, server, *arguments)

    assert done.code == code
    assert word in done.err


async def test_a_wrong_key_is_4_and_nobody_is_3(server: RunningSidecar, tmp_path: Path) -> None:
    """The two reasons why a sidecar cannot be used have codes of their own."""
    key = "wrong-key-of-the-tests"
    refused = await program.sidecar(
        *("run", "x"), home=tmp_path, SIDECAR_BASE_URL=server.url, SIDECAR_API_KEY=key
    )
    away = await program.sidecar("run", "--url", "http://127.0.0.1:9", "x", home=tmp_path)

    assert (refused.code, away.code) == (4, 3)
    assert key not in refused.out + refused.err


async def test_ctrl_c_interrupts_the_turn(server: RunningSidecar, tmp_path: Path) -> None:
    """The first Ctrl-C ends the turn in order: the session comes to rest, the code is 130."""
    process = await program.spawn(
        *("run", "--json", "-m", MODEL, "[[bash: sleep 100]] [[then]] [[say: late]]"),
        home=tmp_path,
        SIDECAR_BASE_URL=server.url,
        SIDECAR_API_KEY=RUNTIME_KEY,
    )
    assert process.stdout is not None
    events = []
    async with patience():
        while not events or events[-1]["type"] != "agent.tool_use":
            events.append(json.loads(await process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
    *more, result = [json.loads(line) for line in rest.decode().splitlines()]

    assert process.returncode == 130
    assert types_of(more)[-1] == "session.status_idle"
    assert "agent.message" not in types_of(more)
    assert (result["type"], result["exit_code"]) == ("run.result", 130)


async def test_without_a_sidecar_one_is_started_for_the_occasion(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """The own sidecar reaches the gateway, keeps its data where the option says, and uses no fixed port."""
    done = await program.sidecar(
        *("run", "--data-dir", str(tmp_path / "kept"), "[[say: from scratch]]"),
        home=tmp_path,
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY=GATEWAY_KEY,
        LITELLM_DEFAULT_MODEL=MODEL,
    )

    assert done.code == 0, done.err
    assert done.out == "from scratch\n"
    assert MODEL in done.err
    assert (tmp_path / "kept" / "sidecar.db").exists()
    assert GATEWAY_KEY not in done.out + done.err


def recorded_checks(document: str) -> list[str]:
    """Return the names of the checks in a document's recording of `doctor --turn`."""
    text = (program.ROOT / document).read_text(encoding="utf-8")
    block = text.partition("$ opencode-sidecar doctor --turn\n")[2].partition("```")[0]
    return [match[1].strip() for match in re.finditer(r"^\S (?:ok|warning) +(.{17})", block, re.M)]


async def test_the_doctor_boots_opencode_beside_a_running_server(
    gateway: DemoGateway, server: RunningSidecar, tmp_path: Path
) -> None:
    """With a turn everything is ok, and the running server's child and data stay as they were."""
    boot = server.supervisor.boot
    done = await program.sidecar(
        *("doctor", "--turn", "--json"),
        home=tmp_path,
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY=GATEWAY_KEY,
        PORT=server.url.rpartition(":")[2],
        DATA_DIR=str(tmp_path / "none"),
    )
    lines = {line["name"]: line for line in done.json["checks"]}

    assert done.code == 0, done.out
    for document in ("README.md", "docs/cli.md"):
        assert recorded_checks(document) == list(lines)
    assert "a sidecar serves" in lines["port"]["message"]
    assert lines["scratch opencode"]["status"] == "ok"
    assert "loads all 6 models" in lines["scratch opencode"]["message"]
    assert lines["turn"]["status"] == "ok"
    assert "Hello from the demo gateway" in lines["turn"]["message"]
    assert GATEWAY_KEY not in done.out + done.err
    assert (server.supervisor.boot, server.supervisor.state) == (boot, "ready")
    assert not (tmp_path / "none").exists()


async def test_models_through_a_running_sidecar(server: RunningSidecar, tmp_path: Path) -> None:
    """A sidecar shows its list; what only the gateway knows is said to be missing."""
    done = await program.sidecar(
        *("models", "--json"),
        home=tmp_path,
        SIDECAR_BASE_URL=server.url,
        SIDECAR_API_KEY=RUNTIME_KEY,
    )
    by_id = {row["id"]: row for row in done.json["models"]}

    assert done.code == 0
    assert by_id["claude-sonnet-4-5"]["max_input_tokens"] == 200_000
    assert by_id["claude-sonnet-4-5"]["sources"]["max_input_tokens"] == "sidecar"
    assert by_id["claude-sonnet-4-5"]["input_cost_per_token"] is None
    assert "prices" in done.json["remarks"][0]
