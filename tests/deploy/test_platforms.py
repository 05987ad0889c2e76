"""Both platforms of the image: what the locks pin can be had for each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.image import ROOT
from tools import npm_integrity

IMAGE_LOCK = ROOT / "requirements" / "image.lock"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_python_package_has_a_wheel(machine: str, tmp_path: Path) -> None:
    """pip finds a binary for the base image's Python with a hash of the lock; nothing is ever compiled."""
    kinds = ("manylinux2014", "manylinux_2_24", "manylinux_2_28")
    tags = [f"--platform={kind}_{machine}" for kind in kinds]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command = [*pip, *options, "--python-version=3.11", *tags, "-d", tmp_path, "-r", IMAGE_LOCK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob(f"*_{machine}.whl"))


def test_the_lock_means_the_same_on_both() -> None:
    """No requirement is for one processor only: pip would evaluate it for the processor it runs on."""
    assert "platform_machine" not in IMAGE_LOCK.read_text()


def lock_without(tmp_path: Path, name: str, version: str | None = None) -> Path:
    """Write a copy of opencode's lock in which a package has no integrity value."""
    lock = json.loads(npm_integrity.LOCK.read_text())
    package = lock["packages"][f"node_modules/{name}"]
    package.pop("integrity", None)
    package["version"] = version or package["version"]
    path = tmp_path / "package-lock.json"
    path.write_text(json.dumps(lock, indent=2) + "\n")
    return path


def test_a_value_is_filled_in_from_the_registry(tmp_path: Path) -> None:
    """The registry's answer for a package that is served equals what npm itself wrote into the lock."""
    name = "opencode-linux-x64"
    path = lock_without(tmp_path, name)
    npm_integrity.fill(path)
    filled, committed = (
        json.loads(file.read_text())["packages"][f"node_modules/{name}"]
        for file in (path, npm_integrity.LOCK)
    )
    assert filled == committed
    assert list(filled) == list(committed)


def test_a_package_that_is_not_served_is_named(tmp_path: Path) -> None:
    """A release is refused when linux/arm64 has no value; what no image is made of does not matter."""
    name = "opencode-linux-arm64"
    path = lock_without(tmp_path, name, version="0.0.0-never-published")
    command = [sys.executable, "tools/npm_integrity.py", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.split()[-3] for line in done.stderr.splitlines()] == [f"{name}:"]
