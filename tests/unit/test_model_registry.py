"""Models that are picked at the same time: they share a write of opencode's config, and no failure."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import InvalidRequestError
from sidecar.gateway.merge import CatalogueEntry
from sidecar.managed.agents.model_registry import ModelRegistry
from sidecar.naming import GATEWAY_PROVIDER, ModelRef
from sidecar.opencode.config_file import ConfigFile

UNNAMEABLE = "x" * 1025


class EveryModel:
    """A catalogue that has every model that is asked for."""

    snapshot = None

    async def resolve(self, name: str) -> tuple[ModelRef, CatalogueEntry]:
        return ModelRef(GATEWAY_PROVIDER, name), CatalogueEntry(name, name)


def registry_for(file: Path) -> tuple[ModelRegistry, ConfigFile]:
    config_file = ConfigFile(file)
    catalogue: Any = EveryModel()
    registry = ModelRegistry(catalogue=catalogue, config_file=config_file, default_model=None)
    return registry, config_file


def written(file: Path) -> set[str]:
    """Return the names of the file's models."""
    return set(json.loads(file.read_bytes())["provider"][GATEWAY_PROVIDER]["models"])


async def test_models_picked_at_once_share_a_write(tmp_path: Path) -> None:
    """The first is written at once, and all that came meanwhile with the next write."""
    registry, config_file = registry_for(tmp_path / "config.json")
    names = [f"model-{number}" for number in range(20)]
    await asyncio.gather(*(registry.resolve(name) for name in names))
    assert config_file.generation <= 2
    assert written(tmp_path / "config.json") == set(names)


async def test_a_refused_model_is_refused_alone(tmp_path: Path) -> None:
    """Those that shared its write are registered; it is refused again when it is picked again."""
    registry, _ = registry_for(tmp_path / "config.json")
    names = ["one", UNNAMEABLE, "two", "three"]
    results = await asyncio.gather(
        *(registry.resolve(name) for name in names), return_exceptions=True
    )
    assert [isinstance(result, InvalidRequestError) for result in results] == [
        False,
        True,
        False,
        False,
    ]
    assert written(tmp_path / "config.json") == {"one", "two", "three"}
    with pytest.raises(InvalidRequestError, match="longer than 1024"):
        await registry.resolve(UNNAMEABLE)
    assert str(await registry.resolve("four")) == "litellm/four"


async def test_a_write_that_fails_fails_all_that_wait_and_leaves_nothing(tmp_path: Path) -> None:
    """Each tries for itself; none is written later with another's model."""
    folder = tmp_path / "gone"
    registry, config_file = registry_for(folder / "config.json")
    results = await asyncio.gather(
        *(registry.resolve(name) for name in ("one", "two", "three")), return_exceptions=True
    )
    assert all(isinstance(result, OSError) for result in results)
    folder.mkdir()
    await registry.resolve("four")
    assert written(folder / "config.json") == {"four"}
    assert set(config_file.entries()) == {"four"}
