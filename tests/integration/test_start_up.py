"""The start: the list of models is there at once, and a start that cannot succeed says why."""

import time
from pathlib import Path

import pytest

from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.gateway import catalogue_file
from tests.fakes.small_sidecar import small_settings
from tests.harness import http_client, sidecar_for

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A catalogue is on disk, and its gateway is away."""
    facts = {"models": {"openai/gpt-4o": {}, "house-model": {}}}
    made = small_settings(tmp_path, NOBODY)
    file = made.storage.data_dir / "catalogue.json"
    catalogue_file.save(file, gateway_url=NOBODY, fetched_at=time.time(), facts=facts)
    return made


async def test_the_saved_models_are_listed_without_the_gateway(settings: Settings) -> None:
    """The list from disk, one model of it, and only for who has the key; opencode is not waited for."""
    async with sidecar_for(settings, is_ready=False) as sidecar:
        async with http_client(sidecar.url) as http:
            async with http.get("/v1/models") as answer:
                assert answer.status == 200
                listed = [item["id"] for item in (await answer.json())["data"]]
                assert sorted(listed) == ["house-model", "openai/gpt-4o"]
            async with http.get("/v1/models/openai/gpt-4o") as answer:
                assert answer.status == 200
        async with http_client(sidecar.url, key=None) as http:
            async with http.get("/v1/models") as answer:
                assert answer.status == 401
            async with http.get("/startupz") as answer:
                assert answer.status == 200


async def test_a_taken_port_is_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    """The message names the variable; nothing is left open."""
    async with sidecar_for(settings, is_ready=False) as first:
        port = int(first.url.rpartition(":")[2])
        other = small_settings(tmp_path / "other", NOBODY)
        http = other.http.model_copy(update={"port": port})
        with pytest.raises(SettingsError, match=f"PORT: cannot listen on 127.0.0.1:{port}"):
            async with sidecar_for(other.model_copy(update={"http": http}), is_ready=False):
                pass
