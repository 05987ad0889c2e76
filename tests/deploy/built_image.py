"""The Dockerfile, really built by buildah, unpacked once for all tests that run it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.image import ROOT

_UNSHARE = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
ENTER = (*_UNSHARE, str(Path(__file__).with_name("root.sh")))
"""Followed by the root, the directory for /data, and the command."""
BUILD_SECONDS = 1500


class Built:
    """An unpacked image and its configuration."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "rootfs"
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())

    @property
    def environment(self) -> dict[str, str]:
        """The image's own variables, and nothing of this machine."""
        return dict(pair.split("=", 1) for pair in self.config["Env"])


@contextmanager
def build() -> Iterator[Built]:
    """Build and unpack it, in a folder that the image's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="built-image-"))
    folder.chmod(0o755)
    command = [ROOT / "tools" / "build_image.sh", folder]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield Built(folder)
    # Nothing was mounted here: the tests mount in namespaces of their own.
    mounts = Path("/proc/self/mounts").read_text()
    assert str(folder) not in mounts
    shutil.rmtree(folder)
