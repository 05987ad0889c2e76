"""Settings may have URLs with passwords in them: no place that shows one shows those.

What requests hold (repositories, MCP servers, vaults) is refused, see bad_input/test_bodies.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar.config.loading import variables
from tests.ports import free_port
from tests.sidecar_process import SidecarProcess, run

WORD = "planted-in-a-url"


@pytest.fixture
async def refusing() -> AsyncIterator[str]:
    """A gateway and an opencode that refuse everything; an opencode at `/starting` that is not there yet.

    Yields host and port.
    """

    async def refuse(request: web.Request) -> web.Response:
        status = 503 if request.path.startswith("/starting") else 401
        return web.json_response({"error": {"message": f"no: http://u:{WORD}@h/"}}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"{host}:{port}"
    await runner.cleanup()


def environment(data_dir: Path, host: str) -> dict[str, str]:
    """Return settings whose URLs have a password, where they may."""
    url = f"http://me:{WORD}@{host}"
    return {
        "PORT": "0",
        "HOST": "127.0.0.1",
        "SIDECAR_ADMIN_PORT": "0",
        "DATA_DIR": str(data_dir),
        "LITELLM_BASE_URL": url,
        "OPENCODE_URL": f"http://{host}",
        "OPENCODE_SERVER_PASSWORD": "wrong-password",
        "SIDECAR_RELAY_URL": f"http://{host}/v1",
        "SIDECAR_RELAY_PORT": str(free_port()),
        "SIDECAR_RELAY_TOKEN": "token-of-the-relay",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "CURSOR_BASE_URL": f"http://{host}",
        "CURSOR_API_KEY": "key-of-cursor",
        "HTTPS_PROXY": url,
        "SIDECAR_GATEWAY_OVERRIDES": json.dumps({"m": {"display_name": url}}),
        "SIDECAR_LOG_LEVEL": "debug",
        "SIDECAR_LOG_FORMAT": "json",
    }


def test_every_setting_that_is_a_url_is_in_the_test(tmp_path: Path) -> None:
    """But for the database's, which is a secret as a whole, and the archive's, which may have no password."""
    urls = {name for _, name, field in variables() if name.endswith("_URL")}
    elsewhere = {"DATABASE_URL", "SIDECAR_ARCHIVE_URL"}
    assert urls - elsewhere <= set(environment(tmp_path, "h"))


@pytest.mark.parametrize("name", ["OPENCODE_URL", "SIDECAR_RELAY_URL", "CURSOR_BASE_URL"])
async def test_a_password_beside_a_key_is_refused(tmp_path: Path, name: str) -> None:
    """One header cannot carry both: the look for opencode died of it."""
    wrong = {name: f"http://me:{WORD}@127.0.0.1:1"}
    code, shown = await run("serve", **environment(tmp_path / "data", "127.0.0.1:1") | wrong)
    assert code == 2
    assert f"{name}: must not have a user or password" in shown
    assert WORD not in shown


async def test_a_server_shows_no_password(refusing: str, tmp_path: Path) -> None:
    """In its answers, pages and metrics, and in its log with all its errors."""
    settings = environment(tmp_path / "data", refusing)
    settings["OPENCODE_URL"] += "/starting"
    sidecar = await SidecarProcess.start(**settings)
    try:
        url = await sidecar.url()
        admin = (await sidecar.logged("admin listener"))["url"]
        async with aiohttp.ClientSession() as http:

            async def text(address: str) -> str:
                async with http.get(address) as answer:
                    return f"{answer.headers} {await answer.text()}"

            paths = (
                "health",
                "v1/models",
                "v1/models?runtime=anthropic",
                "v1/models?runtime=cursor",
            )
            pages = [f"{url}/{path}" for path in (*paths, "console", "console/models", "session")]
            pages += [f"{admin}/{path}" for path in ("metrics", "admin/config", "health")]
            shown = {page: await text(page) for page in pages}
    finally:
        sidecar.process.terminate()
        await sidecar.ended()
    assert f"***@{refusing}" in shown[f"{url}/console"], "the gateway's URL is on it"
    assert [page for page, body in shown.items() if WORD in body] == []
    assert WORD not in sidecar.output


@pytest.mark.parametrize(
    "command",
    [("config",), ("config", "--json"), ("doctor",), ("doctor", "--json"), ("models",), ("serve",)],
)
async def test_a_command_shows_no_password(
    refusing: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """What an operator pastes into a ticket. A server ends where opencode refuses the password."""
    _, shown = await run(*command, **environment(tmp_path / "data", refusing))
    assert "***@" in "".join(shown.split())
    assert WORD not in "".join(shown.split())
