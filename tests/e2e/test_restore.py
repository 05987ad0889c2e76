"""A backup of the volume is restored: a copy of the data directory at one instant, as a snapshot is."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from sidecar.demo_gateway import DemoGateway
from tests.e2e.test_process import KEY, settings
from tests.harness import HELD_CALL, http_client, release, text_of
from tests.raw_client import RawClient
from tests.sidecar_process import serving


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process and all below it, the sidecar first, while the block runs."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for member in reversed(family):
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGCONT)


async def test_a_snapshot_of_a_running_sidecar_is_a_backup(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Taken in mid-turn and put in the volume's place: the sessions go on with files and conversation, a
    credential is still read, and the turn that was cut has one honest end. The original was not disturbed."""
    environment = settings(tmp_path / "life", gateway)
    data, backup = Path(environment["DATA_DIR"]), tmp_path / "backup"
    async with serving(**environment) as sidecar, http_client(await sidecar.url(), KEY) as http:
        raw = RawClient(http)
        kept = await raw.new_session()
        await raw.turn(kept, "[[bash: echo from-before > note; echo made]] [[then]] [[say: noted]]")
        vault = await raw.call("POST", "/v1/vaults", {"display_name": "of the backup"})
        credential = {
            "display_name": "a token",
            "auth": {
                "type": "environment_variable",
                "secret_name": "RESTORED_TOKEN",
                "secret_value": "value-of-the-backup",
                "networking": {"type": "unrestricted"},
            },
        }
        await raw.call("POST", f"/v1/vaults/{vault['id']}/credentials", credential)
        cut = await raw.new_session(vault_ids=[vault["id"]])
        async with raw.stream(cut) as reader:
            await raw.send(cut, f"{HELD_CALL} [[then]] [[say: whole]]")
            await reader.until("agent.tool_use")
            with frozen(sidecar.process.pid):
                copy = ["cp", "--archive", data, backup]
                subprocess.run(copy, check=True)  # sockets too, as in a snapshot
            release(data / "workspaces" / cut)
            await reader.until("session.status_idle")
            assert text_of(reader.seen) == "whole"

    shutil.rmtree(data)
    backup.rename(data)
    async with serving(**environment) as sidecar, http_client(await sidecar.url(), KEY) as http:
        raw = RawClient(http)
        events = await raw.turn(kept, "[[bash: cat note]] [[then]] [[say: read]]")
        assert "from-before" in str(events)
        ended = [event["type"] for event in await raw.events(cut)]
        assert ended.count("session.error") == ended.count("session.status_idle") == 1
        events = await raw.turn(cut, "[[bash: echo $RESTORED_TOKEN | wc -c]] [[then]] [[say: on]]")
        assert str(len("value-of-the-backup\n")) in str(events)
        assert text_of(events) == "on"
