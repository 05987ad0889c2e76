"""Where no key is asked, an agent's programs reach neither the API nor the admin listener. Real opencode."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from sidecar.demo_gateway import DemoGateway
from tests.harness import make_settings, sidecar_for
from tests.raw_client import RawClient

_ASK = """
import sys, urllib.request, urllib.error
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=20).status)
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
