"""The Dockerfile, really built: buildah runs its instructions on bases from Debian's mirror, and the result
runs as in a cluster. What differs from a release is the bases, whose packages are Debian's."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.deploy.built_image import BUILD_SECONDS, ENTER, Built
from tests.deploy.container import Container, run_turn, tool_output, until_healthy
from tests.deploy.image import ROOT
from tests.harness import text_of
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
KEY = "runtime-key-of-the-built-image"
pytestmark = pytest.mark.timeout(BUILD_SECONDS + 300)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(built: Built) -> AsyncIterator[Container]:
    """The image's command, on the demo gateway, with an empty volume."""
    data = Path(tempfile.mkdtemp(prefix="built-data-"))
    os.chown(data, 10001, 10001)
    environment = built.environment | {"RUNTIME_API_KEY": KEY, "PORT": str(free_port())}
    command = built.config["Entrypoint"] + built.config["Cmd"]
    log_file = data.with_suffix(".log")
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *ENTER,
            str(built.root),
            str(data),
            *command,
            env=environment,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{environment['PORT']}"
    container = Container(url, environment, process, log_file, has_launcher=True)
    kind, *check = built.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    try:
        await until_healthy(container, ["chroot", str(built.root), *check])
        yield container
    finally:
        await container.stop()
        assert str(data) not in Path("/proc/self/mounts").read_text()
        shutil.rmtree(data)
        log_file.unlink()


def test_the_configuration_is_the_dockerfiles(built: Built) -> None:
    """User by number, volume, port, stop signal and labels reach the image."""
    config = built.config
    assert config["User"] == "10001:10001"
    assert set(config["Volumes"]) == {"/data"}
    assert set(config["ExposedPorts"]) == {"8080/tcp"}
    assert config["StopSignal"] in {"SIGTERM", "15"}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == "test"
    assert labels["org.opencontainers.image.base.name"].endswith("base-python")


def test_the_last_stage_has_what_agents_need(built: Built) -> None:
    """What apt-get installed is there, with the user; what only builds is not."""
    for program in ("git", "rg"):
        assert (built.root / "usr" / "bin" / program).is_file()
    assert re.search(r"^sidecar:x:10001:10001:", (built.root / "etc/passwd").read_text(), re.M)
    assert (built.root / "data").stat().st_uid == 10001
    assert (built.root / "data").stat().st_mode & 0o777 == 0o700
    assert not list((built.root / "var/lib/apt/lists").iterdir())
    assert not (built.root / "src").exists()
    assert not list((built.root / "opt/sidecar").rglob("node_modules"))


def test_the_locked_opencode_is_in_it(built: Built, tmp_path: Path) -> None:
    """The executable says the version of the lock."""
    pinned = json.loads((ROOT / "deploy/opencode/package.json").read_text())["dependencies"]
    os.chown(tmp_path, 10001, 10001)
    environment = {"HOME": "/tmp", "PATH": SEARCH_PATH}
    command = [*ENTER, built.root, tmp_path, built.environment["SIDECAR_CHILD_BINARY"]]
    done = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == pinned["opencode-ai"]


async def test_a_turn_runs_in_it(running: Container) -> None:
    """As user 10001 on a read-only root: the model answers, tools work, only the session's own is written."""
    script = (
        "id -u; touch $TMPDIR/made made && echo written; touch /usr/x 2>&1; rg --version | head -1"
    )
    events = await run_turn(running.url, KEY, f"[[bash: {script}]] [[then]] [[say: it works]]")
    assert text_of(events) == "it works"
    output = tool_output(events)
    assert output.startswith("10001\nwritten\n")
    assert "Read-only file system" in output
    assert "ripgrep" in output


def test_it_is_process_1_without_privileges(running: Container) -> None:
    """No capability is left, not even in the bounding set, and none can be gained."""
    status = Path(f"/proc/{running.sidecar.pid}/status").read_text()
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.M)
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"^{name}:\t0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.M)


async def test_sigterm_ends_it_in_order(running: Container) -> None:
    """It drains and exits with 0, and no process of it is left."""
    family = running.sidecar.children(recursive=True)
    assert family
    assert await running.stop() == 0
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
    assert alive == []
    assert "draining" in running.log_file.read_text()


def test_it_carries_this_version(built: Built) -> None:
    """The program in the image says the project's version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    command = ["chroot", built.root, *built.config["Entrypoint"], "--version"]
    environment = {"PATH": SEARCH_PATH}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"{version}\n"
