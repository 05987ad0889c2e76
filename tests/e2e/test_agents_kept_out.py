"""Where no key is asked, an agent's programs reach neither the API nor the admin listener; nowhere the
console. Real opencode."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from sidecar.demo_gateway import DemoGateway
from tests.harness import RUNTIME_KEY, http_client, make_settings, sidecar_for
from tests.raw_client import RawClient

_ASK = """
import os, sys, urllib.request, urllib.error
headers = {"cookie": open("cookie").read()} if os.path.exists("cookie") else {}
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


async def test_an_agent_cannot_use_the_api_of_a_sidecar_without_a_key(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Its command, and what it left behind, get 403; a program beside is served; probes are for all."""
    settings = make_settings(tmp_path, gateway.url, http={"runtime_api_key": None})
    async with sidecar_for(settings) as sidecar, aiohttp.ClientSession(sidecar.url) as http:
        raw = RawClient(http)
        session = await raw.new_session()
        directory = settings.storage.workspaces_dir / session
        await raw.turn(session, "[[say: hello]]")
        (directory / "ask.py").write_text(_ASK)
        served = [f"{sidecar.url}{path}" for path in ("/v1/models", "/session", "/health")]
        urls = " ".join([f"{sidecar.admin_url}/admin/state", *served])
        await raw.turn(session, f"[[bash: python3 ask.py {urls} > direct]]")
        await raw.turn(
            session, f"[[bash: setsid sh -c 'python3 ask.py {urls} > left' &>/dev/null; wait]]"
        )
        assert (directory / "direct").read_text().split() == ["403", "403", "403", "200"]
        assert (directory / "left").read_text().split() == ["403", "403", "403", "200"]


async def test_an_agent_cannot_use_the_console(gateway: DemoGateway, tmp_path: Path) -> None:
    """Not to sign in, and not with an operator's cookie, which a page on another port could be sent."""
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        cookie = await _sign_in(sidecar.url)
        async with http.get("/console", headers={"cookie": cookie}) as answer:
            assert (answer.status, answer.url.path) == (200, "/console")
        raw = RawClient(http)
        session = await raw.new_session()
        directory = settings.storage.workspaces_dir / session
        await raw.turn(session, "[[say: hello]]")
        (directory / "cookie").write_text(cookie)
        (directory / "ask.py").write_text(_ASK)
        urls = " ".join(
            f"{sidecar.url}{path}" for path in ("/console", "/console/sign-in", "/v1/models")
        )
        await raw.turn(session, f"[[bash: python3 ask.py {urls} > answers]]")
        assert (directory / "answers").read_text().split() == ["403", "403", "401"]


async def _sign_in(url: str) -> str:
    """Return the cookie of an operator."""
    async with (
        aiohttp.ClientSession(url, headers={"origin": url}) as http,
        http.post("/console/sign-in", data={"key": RUNTIME_KEY}, allow_redirects=False) as answer,
    ):
        (cookie,) = answer.cookies.values()
        return f"{cookie.key}={cookie.value}"
