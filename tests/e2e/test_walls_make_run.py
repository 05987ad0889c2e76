"""The attacks on `make run` in a clean clone: no key is asked, and `make` beside it has the gateway's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.confined import Installation
from tests.scene import EVERYTHING, Scene, scene
from tests.sidecar_process import ROOT

UNSET = ("RUNTIME_API_KEY", "SIDECAR_CONFINEMENT")
STARTER = "#!{python}\nimport sys\nfrom sidecar.__main__ import main\nsys.exit(main())\n"


@dataclass
class Checkout(Installation):
    """A clone in which `make setup` finds nothing to do."""

    @classmethod
    def clone(cls, root: Path) -> Checkout:
        """Clone this repository; what `make setup` would install is lent from here."""
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, root], check=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
        (packages,) = (root / ".venv").glob("lib/python*/site-packages")
        (lent,) = Path(sys.prefix).glob("lib/python*/site-packages")
        (packages / "lent.pth").write_text(f"{root}\n{lent}\n")
        starter = root / ".venv" / "bin" / "opencode-sidecar"
        starter.write_text(STARTER.format(python=root / ".venv" / "bin" / "python"))
        starter.chmod(0o755)
        lock = (root / "requirements" / "run.lock").read_text()
        (root / ".venv" / ".stamp-run.lock").write_text(f"{root.resolve()}\n{lock}")
        shutil.copy(root / "pyproject.toml", root / ".venv" / ".stamp-project")
        modules = Path("deploy", "opencode", "node_modules")
        (root / modules).symlink_to(ROOT / modules)
        python = Path(sys.base_prefix, "bin", "python3")
        return cls(root, [], root, python, False, has_launcher=True)

    def serving(self, _data_dir: Path) -> list[str]:
        """Return the command of the README."""
        return ["make", "-C", str(self.root), "run"]

    def environment(self, data_dir: Path) -> dict[str, str]:
        """Return a user's environment: the data directory is the default one below HOME."""
        return {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(data_dir.parents[2]),
            "PORT": "0",
            "SIDECAR_ADMIN_PORT": "0",
            "SIDECAR_LOG_FORMAT": "json",
        }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clean clone."""
    return Checkout.clone(tmp_path_factory.mktemp("clone") / "opencode-sidecar")


def default_data_dir(home: Path) -> Path:
    """Return where the sidecar keeps its data for a user with that home."""
    data_dir = home / ".local" / "state" / "opencode-sidecar"
    data_dir.mkdir(parents=True)
    return data_dir


@pytest.fixture(scope="module")
async def walls(
    checkout: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """`make run` with a gateway and its key, and nothing else set."""
    data_dir = default_data_dir(tmp_path_factory.mktemp("home"))
    async with scene(checkout, data_dir, "", without=UNSET) as made:
        yield made


def test_setup_had_nothing_to_do(walls: Scene) -> None:
    """It is the clone's code that runs, and `make` with the gateway's key is there."""
    assert not any("installing" in line for line in walls.sessions.process.lines)
    launcher = walls.sessions.process.process.pid
    key = walls.planted["gateway"]
    assert key in Path(f"/proc/{launcher}/environ").read_bytes()
    assert str(walls.installation.root) in " ".join(walls.sessions.sidecar.cmdline())


async def test_an_agent_gets_and_does_nothing(walls: Scene) -> None:
    """A command, a survivor, file tools; and it cannot approve its own call although no key is asked."""
    assert len(walls.ports()) >= 5
    assert await walls.attack() == (set(), [])
    assert await walls.survive() == (set(), [])
    assert walls.found((await walls.read_with_file_tools()).encode()) == set()
    assert not await walls.answers_itself()


async def test_it_finds_everything_without_walls(
    checkout: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With SIDECAR_CONFINEMENT=off: also the key in the environment of `make`."""
    data_dir = default_data_dir(tmp_path_factory.mktemp("home"))
    async with scene(checkout, data_dir, "off", without=("RUNTIME_API_KEY",)) as made:
        got, acts = await made.attack(is_harmless=True)
    assert EVERYTHING - {"runtime"} - got == set()
    assert [act for act in acts if act.startswith("signal")]
