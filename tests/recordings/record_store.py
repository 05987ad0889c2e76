"""Record what a release leaves in its database: `python -m tests.recordings.record_store`.

To be run once, by the release that introduces a schema version, before the next one changes it. Runs a
turn, a confirmation that is left waiting and a vault through the real opencode, and dumps the file.
"""

import asyncio
import base64
import sqlite3
import tempfile
from pathlib import Path

from pydantic import SecretStr

from sidecar.config import Settings, VaultSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.store.migrations import MIGRATIONS
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for
from tests.raw_client import TOOLSET, RawClient

DIRECTORY = Path(__file__).with_name("store")
VAULT_KEY = base64.b64encode(b"the key of the recorded database").decode()
ASKING = {
    "type": "agent_toolset_20260401",
    "default_config": {"permission_policy": {"type": "always_ask"}},
}


def settings_of(data_dir: Path, gateway_url: str) -> Settings:
    """Return the settings with which a recorded database can be opened."""
    settings = make_settings(data_dir, gateway_url)
    return settings.model_copy(update={"vault": VaultSettings(key=SecretStr(VAULT_KEY))})


async def record(data_dir: Path) -> None:
    """Leave something of everything in the database."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    async with (
        sidecar_for(settings_of(data_dir, gateway.url)) as sidecar,
        http_client(sidecar.url) as http,
    ):
        raw = RawClient(http)
        session = await raw.new_session(name="finished", tools=[TOOLSET])
        await raw.turn(session, "[[bash: echo recorded]] [[then]] [[say: done]]")
        waiting = await raw.new_session(name="waiting", tools=[ASKING])
        await raw.turn(waiting, "[[bash: echo waits]] [[then]] [[say: went on]]")
        vault = await raw.call("POST", "/v1/vaults", {"display_name": "recorded"})
        auth = {
            "type": "static_bearer",
            "mcp_server_url": "https://mcp.example/mcp",
            "token": "recorded-token",
        }
        await raw.call("POST", f"/v1/vaults/{vault['id']}/credentials", {"auth": auth})
    await gateway.close()


def main() -> None:
    """Record the newest version."""
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(record(Path(scratch)))
        connection = sqlite3.connect(Path(scratch) / "sidecar.db")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        assert version == len(MIGRATIONS)
        text = "\n".join([*connection.iterdump(), f"PRAGMA user_version={version};", ""])
        connection.close()
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"v{version}.sql").write_text(text)


if __name__ == "__main__":
    main()
