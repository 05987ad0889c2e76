"""A data directory that an earlier release left: the sidecar and opencode go on where it stopped."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sidecar.demo_gateway import DemoGateway
from tests.harness import GATEWAY_KEY, http_client, sidecar_for, text_of
from tests.raw_client import RawClient, plain
from tests.recordings.record_store import settings_of

RECORDED = Path(__file__).parents[1] / "recordings" / "data-directory"
"""The two databases of commit aa95917, after `record_store.record`, as SQL. Where the directory was is
replaced by `old-data-directory`; opencode stores paths with and without the slash before them."""


def restore(data_dir: Path) -> None:
    """Make the data directory of that time, with the workspaces of its sessions."""
    opencode = data_dir / "opencode" / "data" / "opencode" / "opencode.db"
    opencode.parent.mkdir(parents=True)
    here = str(data_dir).lstrip("/")
    for name, file in (("sidecar", data_dir / "sidecar.db"), ("opencode", opencode)):
        dump = (RECORDED / f"{name}.sql").read_text().replace("old-data-directory", here)
        with sqlite3.connect(file) as connection:
            connection.executescript(dump)
        connection.close()
    with sqlite3.connect(data_dir / "sidecar.db") as connection:
        for (session,) in connection.execute("SELECT id FROM sessions"):
            (data_dir / "workspaces" / session).mkdir(parents=True)
    connection.close()


async def test_sessions_of_an_earlier_release_go_on(tmp_path: Path) -> None:
    """The model gets the old conversation with a new message, and a call that waited is confirmed and run."""
    data_dir = tmp_path / "data"
    restore(data_dir)
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    async with (
        sidecar_for(settings_of(data_dir, gateway.url)) as sidecar,
        http_client(sidecar.url) as http,
    ):
        raw = RawClient(http)
        sessions = {s["agent"]["name"]: s for s in (await raw.call("GET", "/v1/sessions"))["data"]}
        finished, waiting = sessions["finished"]["id"], sessions["waiting"]["id"]

        assert text_of(await raw.turn(finished, "[[say: goes on]]")) == "goes on"
        asked = [r for r in gateway.requests if r.body and "goes on" in str(r.body)]
        assert "echo recorded" in str(asked[-1].body), "the history is lost"

        (call,) = plain(await raw.events(waiting), "agent.tool_use")
        confirmation = {
            "type": "user.tool_confirmation",
            "tool_use_id": call["id"],
            "result": "allow",
        }
        async with raw.stream(waiting) as reader:
            await raw.send_events(waiting, confirmation)
            turn = await reader.until("session.status_idle", count=2)  # the first is replayed
        assert turn[-1]["stop_reason"] == {"type": "end_turn"}
        (result,) = plain(turn, "agent.tool_result")
        assert "waits" in str(result["content"])
    await gateway.close()
