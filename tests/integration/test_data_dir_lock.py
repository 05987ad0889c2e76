"""A data directory belongs to one sidecar at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.errors import SettingsError
from sidecar.gateway.demo import DemoGateway
from tests.harness import GATEWAY_KEY, make_settings, sidecar_for


async def test_a_second_sidecar_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """It would sweep the first one's opencode away; the sentence names the directory and the fix."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings, is_ready=False):
        with pytest.raises(SettingsError, match="is used by another sidecar"):
            async with sidecar_for(settings, is_ready=False):
                pass
    async with sidecar_for(settings, is_ready=False) as sidecar:
        assert sidecar.url
    await gateway.close()
