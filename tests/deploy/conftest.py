"""The image's contents, built once for all tests of this folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import built_image
from tests.deploy.image import Image, build


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Follow the Dockerfile. In a folder that other users may enter, because the image's user is another."""
    root = Path(tempfile.mkdtemp(prefix="image-"))
    root.chmod(0o755)
    yield build(root)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def built() -> Iterator[built_image.Built]:
    """Build the Dockerfile itself, and unpack the image."""
    with built_image.build() as made:
        yield made
