"""A process that owns a real child: `child_owner.py <data dir>`; made to be SIGKILLed by a test.

Starts the demo gateway and opencode, lets a turn run `sleep 600` in bash, then prints one JSON line
`{"child": pid, "session": id}` and waits.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sidecar.config import ChildSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.naming import ModelRef
from sidecar.opencode.config_file import AGENT, ConfigFile
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.provider import ModelEntry
from sidecar.opencode.supervisor import Supervisor


async def main(root: Path) -> None:
    """Run until killed."""
    gateway = DemoGateway(models=[DemoModel(id="m")])
    await gateway.start()
    files = ChildFiles(root / "opencode")
    files.root.mkdir(parents=True, exist_ok=True)
    await ConfigFile(files.config_file).register({"m": ModelEntry("m")})
    work = root / "work"
    work.mkdir()
    async with aiohttp.ClientSession() as session:
        supervisor = Supervisor(
            settings=ChildSettings(),
            files=files,
            session=session,
            relay=lambda: RelayAccess(f"{gateway.url}/v1", "token"),
            inherited=os.environ,
        )
        await supervisor.start()
        client = await supervisor.wait_ready(60)
        session_id = await client.create_session(work.resolve(), title="t")
        await client.prompt_async(
            session_id,
            message_id="msg_1",
            model=ModelRef("litellm", "m"),
            agent=AGENT,
            parts=[{"type": "text", "text": "[[bash: echo $$ > pid; sleep 600]]"}],
        )
        while not ((work / "pid").exists() and (work / "pid").read_text().strip()):
            await asyncio.sleep(0.05)
        print("READY", json.dumps({"child": supervisor.pid, "session": session_id}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
