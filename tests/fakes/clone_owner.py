"""A process that clones: `clone_owner.py <url> <target>`; made to be SIGKILLed by a test."""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sidecar.aiokit import TaskOwner
from sidecar.config import RepositorySettings
from sidecar.managed.workspaces.git import Checkout, Git


async def main(url: str, target: Path) -> None:
    """Run until killed."""
    git = Git(settings=RepositorySettings(), inherited=os.environ, tasks=TaskOwner("test"))
    await git.clone(url, target, checkout=Checkout(), token="a token")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
