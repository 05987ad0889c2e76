"""The wheel that `python -m build` makes installs and runs where nothing of the checkout is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.container import run_once
from tests.deploy.image import ROOT, Image, context_files, read_ignore_rules


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Run a command outside the checkout; return its output. Raises AssertionError."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and wheel from a copy of the sources, with the locked setuptools."""
    sources = tmp_path_factory.mktemp("sources")
    for path in context_files(read_ignore_rules()):
        target = sources / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target)
    run([sys.executable, "-m", "build", "--no-isolation"], sources)
    return sources / "dist"


@pytest.fixture(scope="module")
def clean(dist: Path, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of a new environment with the wheel and the lock's packages (copied from
    the image's environment, which was installed from the lock)."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    (locked,), (packages,) = (
        root.glob("lib/python*/site-packages") for root in (image.prefix / "venv", folder)
    )
    is_ours = shutil.ignore_patterns("sidecar", "opencode_sidecar-*")
    shutil.copytree(locked, packages, ignore=is_ours, dirs_exist_ok=True)
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    run([*pip, "--disable-pip-version-check", "install", "--quiet", "--no-deps", wheel], folder)
    return folder / "bin"


def test_the_wheel_holds_the_package_and_its_data(dist: Path) -> None:
    """Every file below sidecar/ that Git would know is in it, and nothing of tests or tools."""
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {path for path in context_files(read_ignore_rules()) if path.startswith("sidecar/")}
    assert names == sources


def test_the_source_distribution_can_make_the_wheel_again(dist: Path, tmp_path: Path) -> None:
    """Distributions build from the sdist: it must be complete."""
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    run([sys.executable, "-m", "build", "--no-isolation", "--wheel"], folder)
    (first,), (second,) = dist.glob("*.whl"), folder.glob("dist/*.whl")
    assert zipfile.ZipFile(first).namelist() == zipfile.ZipFile(second).namelist()


def test_the_requirements_are_satisfied_by_the_lock(clean: Path) -> None:
    """Nothing that the wheel asks for is missing or too old."""
    folder = clean.parent
    run([sys.executable, "-m", "pip", "--python", clean / "python", "check"], folder)


async def test_the_installed_program_runs(clean: Path, tmp_path: Path) -> None:
    """It prints its version and lists its settings."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    program = str(clean / "opencode-sidecar")
    environment = {"HOME": str(tmp_path)}
    assert await run_once([program, "--version"], environment) == (0, f"{version}\n")
    code, output = await run_once([program, "config", "--markdown"], environment)
    assert code == 0
    assert "RUNTIME_API_KEY" in output


async def test_without_opencode_it_says_what_to_do(clean: Path, tmp_path: Path) -> None:
    """The wheel has no opencode. With none on PATH the program ends with an error that names the fix."""
    environment = {"HOME": str(tmp_path), "DATA_DIR": str(tmp_path / "data"), "PORT": "0"}
    environment |= {"PATH": str(tmp_path)}
    code, output = await run_once([str(clean / "opencode-sidecar"), "serve"], environment)
    assert code != 0
    assert "opencode is not installed" in output
    assert "SIDECAR_CHILD_BINARY" in output
