"""The attacks of the walls' suite inside the built image, as its user without capabilities.

Beside it run the commands of engines and kubelets: its health check, compose's, the probes of the overlays.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.confined import Installation
from tests.deploy.built_image import BUILD_SECONDS, ENTER, Built
from tests.deploy.image import ROOT
from tests.deploy.test_compose import services
from tests.ports import free_port
from tests.scene import EVERYTHING, Scene, scene
from tests.waiting import until

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 900)
_AS_ITS_USER = (
    *("/usr/bin/setpriv", "--reuid=10001", "--regid=10001", "--clear-groups"),
    *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
    "--pdeathsig=KILL",  # it is nsenter's child, and nsenter is what the tests end
)


@dataclass
class Image(Installation):
    """The unpacked image, started as an engine would."""

    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, built: Built) -> Image:
        """Return it."""
        binary = Path(built.environment["SIDECAR_CHILD_BINARY"])
        python = Path("/usr/bin/python3")
        return cls(built.root, [], binary, python, True, True, built.config)

    def serving(self, data_dir: Path) -> list[str]:
        """Return the image's command in namespaces of its own."""
        command = self.config["Entrypoint"] + self.config["Cmd"]
        return [*ENTER, str(self.root), str(data_dir), *command]

    def environment(self, _data_dir: Path) -> dict[str, str]:
        """Return the image's own variables, ports that are free, and a log that the test can read."""
        own = dict(pair.split("=", 1) for pair in self.config["Env"])
        ports = {"PORT": str(free_port()), "SIDECAR_ADMIN_PORT": str(free_port())}
        return own | ports | {"SIDECAR_LOG_FORMAT": "json"}

    def beside(self, sidecar_pid: int) -> list[str]:
        """Return what runs a command in the container, as `docker exec` and a kubelet do."""
        enter = ("nsenter", f"--target={sidecar_pid}", "--mount", "--pid", "--root", "--wd=/")
        return [*enter, *_AS_ITS_USER]

    def seen(self, path: Path, data_dir: Path) -> str:
        """Return the path inside the container."""
        return str(Path("/data", path.relative_to(data_dir)))

    def seen_pid(self, pid: int) -> int:
        """Return the process id in the innermost namespace."""
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])
        return pid


def probes(config: dict[str, Any]) -> dict[str, list[str]]:
    """Return every command that looks after the sidecar's health, by where it is from."""
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    found = {"image": check, "compose": services()["sidecar"]["healthcheck"]["test"][1:]}
    for path in (ROOT / "deploy" / "k8s").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            for name, command in _commands(document):
                found[f"{path.parent.name} {name}"] = command
    return found


def _commands(value: Any, name: str = "") -> Iterator[tuple[str, list[str]]]:
    if isinstance(value, dict):
        if "exec" in value:
            yield name, value["exec"]["command"]
        for key, item in value.items():
            yield from _commands(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _commands(item, name)


@asynccontextmanager
async def probed(image: Image, scene: Scene) -> AsyncIterator[dict[str, int]]:
    """Run all probes again and again; yield how often each has succeeded."""
    counts = dict.fromkeys(probes(image.config), 0)
    environment = scene.environment()

    async def repeat(name: str, command: list[str]) -> None:
        before = image.beside(scene.sessions.sidecar.pid)
        while True:
            process = await asyncio.create_subprocess_exec(
                *before, *command, env=environment, stdout=asyncio.subprocess.DEVNULL
            )
            assert await process.wait() == 0, name
            counts[name] += 1
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(repeat(*item)) for item in probes(image.config).items()]
        yield counts
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def running(built: Built, confinement: str) -> AsyncIterator[Scene]:
    """The image with its probes and an empty volume."""
    image = Image.of(built)
    data = Path(tempfile.mkdtemp(prefix="built-walls-"))
    try:
        async with scene(image, data, confinement) as made, probed(image, made) as counts:
            yield made
            await until(lambda: all(counts.values()))
    finally:
        assert str(data) not in Path("/proc/self/mounts").read_text()
        shutil.rmtree(data)


def test_the_probes_are_found(built: Built) -> None:
    """The image's, compose's, and three of the overlay whose sidecar listens on loopback."""
    found = probes(built.config)
    assert {"image", "compose"} < set(found)
    assert len([name for name in found if name.startswith("pod-sidecar ")]) == 3


async def test_an_agent_in_the_image_gets_and_does_nothing(built: Built) -> None:
    """A command, a survivor and file tools; and it cannot approve its own call."""
    async with running(built, "required") as made:
        assert len(made.ports()) >= 5
        assert await made.attack() == (set(), [])
        assert await made.survive() == (set(), [])
        said = await made.read_with_file_tools()
        assert made.found(said.encode()) == set()
        assert "outside of this session's directory" in said
        assert not await made.answers_itself()


async def test_the_suite_finds_everything_in_an_image_without_walls(built: Built) -> None:
    """With SIDECAR_CONFINEMENT=off the same attack succeeds there, too."""
    async with running(built, "off") as made:
        got, acts = await made.attack(is_harmless=True)
    assert EVERYTHING - {"typed"} - got == set(), "the container has no terminal"
    assert [act for act in acts if act.startswith("signal")]
