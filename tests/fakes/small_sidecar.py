"""Settings for a whole sidecar over a fake child: everything but turns, in a tenth of the time."""

import sys
from pathlib import Path

from sidecar.config import Settings
from sidecar.opencode.environment import PINNED_VERSION
from tests.harness import make_settings


def fake_child(directory: Path, program: str = "child_healthy.py") -> Path:
    """Return an executable in the place of opencode: by default one that does what the mechanics need."""
    directory.mkdir(parents=True, exist_ok=True)
    launcher = directory / "fake-opencode"
    launcher.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec echo {PINNED_VERSION}\n'
        f'exec "{sys.executable}" "{Path(__file__).with_name(program)}" "$@"\n'
    )
    launcher.chmod(0o755)
    return launcher


def small_settings(directory: Path, gateway_url: str | None, **admin: object) -> Settings:
    """Return the settings; keyword arguments are the admin listener's."""
    child = {"binary": fake_child(directory), "drain_seconds": 0.1, "health_interval_seconds": 0.1}
    return make_settings(directory / "data", gateway_url, child=child, admin=admin)
