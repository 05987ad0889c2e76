"""Every command of ours, and every probe, closes its environment, which holds keys, to its user."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import typer

from sidecar.cli import app
from tests.confined import USERS, Installation, install

FAKES = Path(__file__).parents[1] / "fakes"
IMAGE = Path(__file__).parents[2] / "deploy"
KEY = "key-in-the-environment-of-a-command"
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
PROGRAMS = (IMAGE / "image" / "healthcheck.py", IMAGE / "register.py")

_TRIES = 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture(scope="module", params=USERS)
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """Our code, for a user without privileges where we are root: root reads everything."""
    return install(tmp_path_factory.mktemp("installation"), request.param)


async def what_others_see(installation: Installation, *command: str) -> dict[str, object]:
    """Run a command with a key in its environment beside a process that looks at it all the time."""
    environment = installation.environment(Path("/nonexistent")) | {
        "RUNTIME_API_KEY": KEY,
        "LITELLM_API_KEY": KEY,
        "LITELLM_BASE_URL": "http://127.0.0.1:9",
        "PORT": "9",
        "LAP_URL": "http://127.0.0.1:9",
        "LAP_MASTER_KEY": KEY,
        "RUNTIME_API_BASE": "http://127.0.0.1:9",
        "REGISTER_WAIT_SECONDS": "1",
    }
    quiet = asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd="/", stdin=quiet, stdout=quiet, stderr=quiet
    )
    reader = await asyncio.create_subprocess_exec(
        *(*installation.beside(0), "python3", "-c", (FAKES / "environ_reader.py").read_text()),
        *(str(running.pid), KEY),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        await running.wait()
        said, _ = await reader.communicate()
    seen: dict[str, object] = json.loads(said)
    return seen


async def check(installation: Installation, *command: str) -> None:
    """See that it is closed at last, and that its arguments are harmless at all times.

    On a busy machine the reader may miss a short-lived command, or see only its beginning: then again.
    """
    for _ in range(_TRIES):
        seen = await what_others_see(installation, *command)
        assert not seen["is_in_arguments"], seen
        if seen["last"] == "closed":
            return
    raise AssertionError(seen)


def test_root_is_not_the_only_user_here() -> None:
    """Somewhere the test must run as a user whom the kernel refuses something."""
    assert os.geteuid() != 0 or "other" in USERS


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_command_is_closed(installation: Installation, name: str) -> None:
    """Whatever it does, it has declared itself not dumpable before."""
    if os.geteuid() == 0 and not installation.is_other_user:
        return  # root reads everything
    await check(installation, *installation.command, name, "--help")


@pytest.mark.parametrize("program", PROGRAMS, ids=[path.name for path in PROGRAMS])
async def test_a_probe_is_closed(installation: Installation, program: Path, tmp_path: Path) -> None:
    """The image's programs of their own close themselves as well."""
    if os.geteuid() == 0 and not installation.is_other_user:
        return
    command = [*installation.command[:-2], "-I", "-S", "-c", program.read_text()]
    await check(installation, *command)
