"""What a session may take of the machine: files, open files, space; and what happens when it takes more."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.confined import UID, Installation, Sessions, confined

MB = 1_000_000
BOUND = 40 * MB


@pytest.fixture(scope="module")
async def sessions(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sessions]:
    """A sidecar with small bounds."""
    data_dir = tmp_path_factory.getbasetemp() / f"limits-{installation.is_other_user}"
    settings = {
        "SIDECAR_CONFINEMENT": "required",
        "SIDECAR_CONFINEMENT_MAX_FILE_BYTES": str(10 * MB),
        "SIDECAR_CONFINEMENT_MAX_OPEN_FILES": "100",
        "SIDECAR_STORAGE_MAX_WORKSPACE_BYTES": str(BOUND),
    }
    async with confined(installation, data_dir, **settings) as made:
        yield made


def error_of(events: list[dict[str, Any]]) -> str:
    """Return the message of the turn's one error."""
    (error,) = [event["error"] for event in events if event["type"] == "session.error"]
    assert error["retry_status"] == {"type": "exhausted"}
    return str(error["message"])


async def test_a_file_has_a_largest_size(sessions: Sessions) -> None:
    """The write that goes beyond it fails, in a command and in what it started."""
    session = await sessions.session()
    said = await sessions.bash(session, "head -c 20000000 /dev/zero > large; echo status $?")
    assert "status 0" not in said
    assert (sessions.workspace(session) / "large").stat().st_size == 10 * MB
    said = await sessions.bash(session, "setsid sh -c 'ulimit -f unlimited' 2>&1; ulimit -Hf")
    assert "unlimited" not in said.splitlines()[-1]


async def test_a_process_has_a_number_of_open_files(sessions: Sessions) -> None:
    """One more is refused, and the bound cannot be raised."""
    script = (
        "import resource\n"
        "files = []\n"
        "try:\n"
        "    while True: files.append(open('/dev/null'))\n"
        "except OSError as error: print('stopped', len(files), error.strerror)\n"
        "try: resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
        "except (ValueError, OSError): print('not raised')\n"
    )
    session = await sessions.session()
    command = f"cat > open.py <<'X'\n{script}X\npython3 open.py"
    said = await sessions.tool(session, "bash", command=command, description="open files")
    assert "not raised" in said
    count = int(said.split("stopped ")[1].split()[0])
    assert 80 <= count < 100


async def test_a_directory_has_a_largest_size(sessions: Sessions) -> None:
    """Beyond it the command ends, the turn fails with bound and size, and deleting makes it usable again."""
    session, other = await sessions.session(), await sessions.session()
    fill = (
        "for i in $(seq 12); do head -c 8000000 /dev/zero > part$i; done; (sleep 300 &) ; sleep 300"
    )
    message = error_of(await sessions.turn(session, f"[[bash: {fill}]]"))
    assert f"{BOUND:,} bytes (SIDECAR_STORAGE_MAX_WORKSPACE_BYTES)" in message
    size = int(message.split("directory holds ")[1].split()[0].replace(",", ""))
    assert BOUND < size < 12 * 8 * MB + MB
    assert "fine" in await sessions.bash(other, "echo fine")
    listing = await sessions.bash(session, "ls; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "part1" in listing
    assert "sleep 300" not in listing
    await sessions.bash(session, "rm part*; echo deleted")
    assert "again" in await sessions.bash(session, "head -c 8000000 /dev/zero > new; echo again")
    metrics = await sessions.metrics()
    assert "sidecar_workspaces_stopped_total 1.0" in metrics


async def test_what_is_left_behind_counts(sessions: Sessions) -> None:
    """A background process that fills HOME is ended, and the next turn reports it."""
    session = await sessions.session()
    fill = "for i in $(seq 12); do sleep 0.2; head -c 8000000 /dev/zero > ~/part$i; done; sleep 300"
    await sessions.bash(session, f"(setsid env -i HOME=$HOME sh -c '{fill}' &) >/dev/null 2>&1")
    stopped = 1 + len(sessions.process.entries("session stopped"))
    await sessions.process.logged("session stopped", count=stopped)
    events = await sessions.turn(session, "[[bash: sleep 110]]")
    assert "SIDECAR_STORAGE_MAX_WORKSPACE_BYTES" in error_of(events)
    assert "0" in await sessions.bash(session, "rm -rf ~/part*; ls ~ | wc -l")


def on_small_disk(installation: Installation, size: str, directory: Path) -> Installation:
    """Return the installation with a disk of that size at the directory, in a mount namespace of its own."""
    namespace = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        namespace.append("--map-root-user")
    owner = f",uid={UID},gid={UID}" if installation.is_other_user else ""
    script = f'mount -t tmpfs -o size={size},mode=700{owner} tmpfs "$0" && exec "$@"'
    command = [*namespace, "sh", "-c", script, str(directory), *installation.command]
    return dataclasses.replace(installation, command=command)


STEADILY = (
    "head -c 170000000 /dev/zero > part0; "
    "for i in $(seq 2000); do head -c 1000000 /dev/zero > part$i; sleep 0.1; done; sleep 300"
)
AT_ONCE = "while :; do cat /dev/zero > part$RANDOM$RANDOM; done"


@pytest.mark.parametrize("fill", [STEADILY, AT_ONCE], ids=["steadily", "at once"])
async def test_a_full_disk_is_the_matter_of_the_session_that_fills_it(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory, fill: str
) -> None:
    """It is stopped; a turn beside it goes on to its end, new sessions work, and its files can be deleted.

    Where it is faster than a look, opencode's own database finds the disk full as well: that may end a turn
    beside it, with an error, and nothing else.
    """
    data_dir = tmp_path_factory.getbasetemp() / f"full-{os.urandom(3).hex()}"
    small = on_small_disk(installation, "300m", data_dir)
    settings = {"SIDECAR_CONFINEMENT": "required"}
    async with confined(small, data_dir, **settings) as sessions:
        filler, other = await sessions.session(), await sessions.session()
        steps = "for i in $(seq 40); do sleep 0.25; done; echo survived"
        events = await sessions.turns((filler, f"[[bash: {fill}]]"), (other, f"[[bash: {steps}]]"))
        assert "the disk is nearly full" in error_of(events[filler])
        errors = [event for event in events[other] if event["type"] == "session.error"]
        assert not errors if fill == STEADILY else len(errors) <= 1
        assert "survived" in str(events[other]) or errors
        assert "fine" in await sessions.bash(await sessions.session(), "echo fine")
        assert "gone" in await sessions.bash(filler, "rm -f part*; echo gone")
        assert "written" in await sessions.bash(
            other, "head -c 9000000 /dev/zero > f && echo written"
        )
