"""`opencode-sidecar doctor --quick` as a process: each fault of a deployment gets its line and its fix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.demo_gateway import DemoGateway
from sidecar.opencode.environment import PINNED_VERSION
from tests import program

KEY = "gateway-key-of-the-tests"


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    started = DemoGateway(key=KEY)
    await started.start()
    yield started
    await started.close()


def executable(home: Path, script: str = f"echo {PINNED_VERSION}") -> str:
    """Make a program that stands in for opencode, of which the quick checks only ask the version."""
    binary = home / "opencode"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return str(binary)


async def examine(
    home: Path, *arguments: str, **variables: str | None
) -> tuple[program.Done, dict[str, dict[str, Any]]]:
    """Return the run and its lines by name."""
    given: dict[str, str | None] = {"DATA_DIR": str(home / "data"), "PORT": "0", **variables}
    if "SIDECAR_CHILD_BINARY" not in given:
        given["SIDECAR_CHILD_BINARY"] = executable(home)
    done = await program.sidecar("doctor", "--quick", "--json", *arguments, home=home, **given)
    return done, {line["name"]: line for line in done.json["checks"]}


async def test_all_is_well(gateway: DemoGateway, tmp_path: Path) -> None:
    """With a gateway and everything installed nothing fails, and nothing is left behind."""
    done, lines = await examine(
        tmp_path,
        "--completion",
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY=KEY,
        SIDECAR_CHILD_BINARY=None,  # the one that `make setup` installs
    )

    assert done.code == 0, done.out
    assert done.json["ok"] is True
    assert {name for name, line in lines.items() if line["status"] == "failure"} == set()
    for name in ("settings", "node", "opencode", "data dir", "gateway", "completion", "config"):
        assert lines[name]["status"] == "ok", lines[name]
    assert "accepts the key" in lines["gateway"]["message"]
    assert "6 models listed, 2 hidden" in lines["catalogue"]["message"]
    assert done.json["counts"]["ok"] == sum(line["status"] == "ok" for line in lines.values())
    assert not (tmp_path / "data").exists()


async def test_a_refused_key_is_a_failure_with_a_fix_and_not_shown(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """The refusal names the variable; the key is in no line; the exit code is 1."""
    key = "sk-wrong-key-of-the-tests"
    done, lines = await examine(tmp_path, LITELLM_BASE_URL=gateway.url, LITELLM_API_KEY=key)

    assert done.code == 1
    assert lines["gateway"]["status"] == "failure"
    assert "LITELLM_API_KEY" in lines["gateway"]["fix"]
    assert key not in done.out + done.err


async def test_a_gateway_that_is_away(tmp_path: Path) -> None:
    """Nothing answers: a failure, and the other checks still run."""
    done, lines = await examine(tmp_path, LITELLM_BASE_URL="http://127.0.0.1:9")

    assert done.code == 1
    assert lines["gateway"]["status"] == lines["catalogue"]["status"] == "failure"
    assert lines["opencode"]["status"] == "ok"
    assert lines["config"]["status"] == "ok"


async def test_a_gateway_without_the_richer_sources(tmp_path: Path) -> None:
    """A refused `/v1/model/info` is a warning: the list works without it."""
    app = web.Application()
    page = {"object": "list", "data": [{"id": "m", "object": "model", "mode": "chat"}]}

    async def models(_request: web.Request) -> web.Response:
        return web.json_response(page)

    app.router.add_get("/v1/models", models)
    async with TestServer(app) as server:
        url = str(server.make_url("/")).rstrip("/")
        done, lines = await examine(tmp_path, LITELLM_BASE_URL=url)

    assert done.code == 0
    assert lines["limits and prices"]["status"] == "warning"
    assert lines["catalogue"]["status"] == "warning"
    assert "1 models listed" in lines["catalogue"]["message"]


async def test_names_that_the_gateway_does_not_offer(gateway: DemoGateway, tmp_path: Path) -> None:
    """A default model that does not exist fails; a stray alias is a warning."""
    common = {"LITELLM_BASE_URL": gateway.url, "LITELLM_API_KEY": KEY}
    wrong, lines = await examine(tmp_path, **common, LITELLM_DEFAULT_MODEL="gone")
    stray, others = await examine(
        tmp_path, **common, SIDECAR_GATEWAY_ALIASES=json.dumps({"fast": "gone"})
    )

    assert (wrong.code, lines["names in settings"]["status"]) == (1, "failure")
    assert (stray.code, others["names in settings"]["status"]) == (0, "warning")
    assert "'fast'" in others["names in settings"]["message"]


async def test_settings_that_cannot_be_used_end_it(tmp_path: Path) -> None:
    """A misspelt variable is the first and only line."""
    done, lines = await examine(tmp_path, SIDECAR_HTTP_HOTS="x")

    assert done.code == 1
    assert list(lines) == ["settings"]
    assert "SIDECAR_HTTP_HOTS" in lines["settings"]["message"]


async def test_a_port_in_use(tmp_path: Path) -> None:
    """A foreign listener is a failure; a sidecar that serves there is fine and says how it is."""
    foreign = web.Application()
    running = web.Application()

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "opencode": {"state": "ready"}})

    running.router.add_get("/health", health)
    async with TestServer(foreign) as other, TestServer(running) as ours:
        taken, lines = await examine(tmp_path, PORT=str(other.port))
        served, own = await examine(tmp_path, PORT=str(ours.port))

    assert (taken.code, lines["port"]["status"]) == (1, "failure")
    assert (served.code, own["port"]["status"]) == (0, "ok")
    assert "ready" in own["port"]["message"]


async def test_an_opencode_that_runs_elsewhere(tmp_path: Path) -> None:
    """With OPENCODE_URL that one is asked, with its password, in place of an executable."""
    app = web.Application()
    offered = []

    async def health(request: web.Request) -> web.Response:
        offered.append(request.headers["authorization"])
        return web.json_response({"healthy": True, "version": PINNED_VERSION})

    app.router.add_get("/global/health", health)
    attached = {
        "OPENCODE_SERVER_PASSWORD": "word-of-the-tests",
        "SIDECAR_RELAY_TOKEN": "token-of-the-tests",
        "SIDECAR_RELAY_PORT": "4097",
    }
    async with TestServer(app) as server:
        url = str(server.make_url("/")).rstrip("/")
        _, lines = await examine(tmp_path, "--turn", OPENCODE_URL=url, **attached)
    away, others = await examine(tmp_path, OPENCODE_URL="http://127.0.0.1:9", **attached)

    assert lines["opencode"]["status"] == "ok"
    assert len(offered) == 1
    assert offered[0].startswith("Basic ")
    assert "scratch opencode" not in lines
    assert lines["turn"]["status"] == "warning"
    assert (away.code, others["opencode"]["status"]) == (1, "failure")


async def test_the_admin_port(tmp_path: Path) -> None:
    """One that was set and is taken fails; switched off it is no concern."""
    async with TestServer(web.Application()) as other:
        taken, lines = await examine(tmp_path, SIDECAR_ADMIN_PORT=str(other.port))
        _, off = await examine(tmp_path, SIDECAR_ADMIN_ENABLED="false")

    assert (taken.code, lines["admin port"]["status"]) == (1, "failure")
    assert off["admin port"]["status"] == "ok"


async def test_the_data_directory(tmp_path: Path) -> None:
    """A file in its place fails; one that is open to others is a warning with the command."""
    file = tmp_path / "file"
    file.write_text("")
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    wrong, lines = await examine(tmp_path, DATA_DIR=str(file))
    _, others = await examine(tmp_path, DATA_DIR=str(shared))

    assert (wrong.code, lines["data dir"]["status"]) == (1, "failure")
    assert others["data dir"]["status"] == "warning"
    assert others["data dir"]["fix"] == f"chmod 700 {shared}"


@pytest.mark.parametrize(
    ("script", "status"),
    [("echo 1.18.33", "ok"), ("echo 9.9.9", "warning"), ("exit 3", "failure")],
)
async def test_the_executable(tmp_path: Path, script: str, status: str) -> None:
    """The pinned version is fine, another one is a warning, one that does not run a failure."""
    _, lines = await examine(tmp_path, SIDECAR_CHILD_BINARY=executable(tmp_path, script))

    assert lines["opencode"]["status"] == status


async def test_the_readable_report(gateway: DemoGateway, tmp_path: Path) -> None:
    """People get a line per check, the fix below what needs one, and a count at the end."""
    done = await program.sidecar(
        *("doctor", "--quick"),
        home=tmp_path,
        LITELLM_BASE_URL=gateway.url,
        LITELLM_API_KEY="sk-wrong-key-of-the-tests",
        PORT="0",
        SIDECAR_CHILD_BINARY=executable(tmp_path),
    )
    lines = done.out.splitlines()
    (gateway_line,) = [n for n, line in enumerate(lines) if line.startswith("✗ failure gateway")]

    assert "→" in lines[gateway_line + 1]
    assert "LITELLM_API_KEY" in lines[gateway_line + 1]
    assert lines[-1].endswith("failure")


async def test_a_terminal_without_check_marks(tmp_path: Path) -> None:
    """An ASCII terminal gets every finding, and JSON that can be read."""
    variables = {
        "PYTHONIOENCODING": "ascii",
        "SIDECAR_CHILD_BINARY": executable(tmp_path),
        "PORT": "0",
    }
    shown = await program.sidecar("doctor", "--quick", home=tmp_path, **variables)
    read = await program.sidecar("doctor", "--quick", "--json", home=tmp_path, **variables)

    assert "Traceback" not in shown.err
    # Not what the two found: something may change between the runs.
    assert all(f" {line['name']} " in shown.out for line in read.json["checks"])
    assert "? ok" in shown.out
