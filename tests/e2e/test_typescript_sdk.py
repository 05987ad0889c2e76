"""The official TypeScript SDK, unmodified, through the same steps as the Python smoke client."""

import asyncio
from pathlib import Path

from sidecar.app import RunningSidecar
from tests import node_program
from tests.harness import RUNTIME_KEY

PROGRAM = Path(__file__).parent / "typescript"
STEPS = 12


async def test_the_typescript_sdk(sidecar: RunningSidecar) -> None:
    """Models, agents, sessions, streams, confirmations, custom tools, interrupts, the SDK's tool runner."""
    folder = await asyncio.to_thread(node_program.install, PROGRAM)
    text = await node_program.run(folder / "smoke.mjs", sidecar.url, RUNTIME_KEY)
    assert text.count("ok: ") == STEPS, text
