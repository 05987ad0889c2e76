"""Makes a model that a client picked usable by the child: resolve it, write it into the child's config.

The config holds the models in use (agents, sessions, the default), not the whole catalogue: a gateway
with wildcards lists thousands, and opencode would load them all for every directory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from sidecar.errors import InvalidRequestError
from sidecar.gateway.catalogue import Catalogue, CatalogueEntry, CatalogueSnapshot
from sidecar.naming import GATEWAY_PROVIDER, ModelRef
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.provider import Costs, ModelEntry

_PER_MILLION = 1_000_000


class ModelRegistry:
    """Knows which models the child must know."""

    def __init__(
        self, *, catalogue: Catalogue, config_file: ConfigFile, default_model: str | None
    ) -> None:
        self._catalogue = catalogue
        self._config_file = config_file
        self._default_model = default_model
        self._in_use: set[str] = set()
        self._asked: set[str] = set()  # not yet written: requests at the same time share a write
        self._lock = asyncio.Lock()

    async def start(self, refs: Iterable[str]) -> None:
        """Write the first generation: the models of stored agents and sessions, and the default."""
        parsed = map(ModelRef.parse, refs)
        self._in_use = {ref.model_id for ref in parsed if ref.provider == GATEWAY_PROVIDER}
        await self.update()

    async def resolve(self, name: str) -> ModelRef:
        """Return the model that a client's name means, and see that the child can use it.

        Raises InvalidRequestError for a name that no list has (with near matches) or a model that opencode
        could not read, and GatewayUnavailableError while no list can be had that may have it.
        """
        ref, entry = await self._catalogue.resolve(name)
        if not self._is_registered(ref.model_id, entry):
            self._asked.add(ref.model_id)
            async with self._lock:
                # The holder of the lock before may have written this model with its own.
                if not self._is_registered(ref.model_id, entry):
                    await self._add(ref.model_id)
                    if why := self._config_file.refused.get(ref.model_id):
                        raise InvalidRequestError(
                            f"model: {name[:200]!r} cannot be given to opencode: {why}",
                            field="model",
                        )
        return ref

    async def _add(self, model_id: str) -> None:
        """Write the model and all others that wait; when that fails, each of those tries for itself."""
        added, self._asked = self._asked | {model_id}, set()
        await self._write(self._in_use | added)
        # Not before the write: what failed stays out.
        self._in_use |= added - self._config_file.refused.keys()

    async def update(self) -> None:
        """Write the config for the models in use as the catalogue has them now."""
        async with self._lock:
            await self._write(self._in_use)

    def default_model(self) -> str | None:
        """Return the id of the model for opencode's own default and small calls; None while unknown."""
        return self._default(self._catalogue.snapshot)

    def modalities_of(self, model_ref: str) -> frozenset[str] | None:
        """Return what the model takes (`text`, `image`, `pdf`); None when that is not known."""
        ref = ModelRef.parse(model_ref)
        entry = self._config_file.entries().get(ref.model_id)
        return entry.input_modalities if ref.provider == GATEWAY_PROVIDER and entry else None

    async def _write(self, in_use: AbstractSet[str]) -> None:
        snapshot = self._catalogue.snapshot
        default = self._default(snapshot)
        wanted = in_use | ({default} if default else set())
        models = {name: self._entry(name, snapshot) for name in wanted}
        await self._config_file.register(models, default_model=default)

    def _is_registered(self, model_id: str, entry: CatalogueEntry) -> bool:
        if model_id not in self._in_use:
            return False  # the default, which may become another one
        return self._config_file.entries().get(model_id) == model_entry(entry)

    def _entry(self, model_id: str, snapshot: CatalogueSnapshot | None) -> ModelEntry:
        entry = snapshot.entries.get(model_id) if snapshot is not None else None
        if entry is not None:
            return model_entry(entry)
        # Gone from the gateway, or not seen since the start: what was known is better than nothing.
        return self._config_file.entries().get(model_id) or ModelEntry(model_id)

    def _default(self, snapshot: CatalogueSnapshot | None) -> str | None:
        if snapshot is None:
            return self._default_model
        name = (self._default_model or "").removeprefix(f"{GATEWAY_PROVIDER}/")
        if name in snapshot.entries and snapshot.entries[name].is_usable:
            return name
        return next(iter(snapshot.listed), None)


def model_entry(entry: CatalogueEntry) -> ModelEntry:
    """Return a catalogue entry as opencode's config has it."""
    return ModelEntry(
        id=entry.id,
        display_name=entry.display_name,
        max_input_tokens=entry.max_input_tokens,
        max_output_tokens=entry.max_output_tokens,
        input_modalities=frozenset(entry.input_modalities),
        supports_tools=entry.supports_tools is not False,
        supports_reasoning=entry.supports_reasoning is True,
        costs=Costs(
            input=(entry.input_cost_per_token or 0.0) * _PER_MILLION,
            output=(entry.output_cost_per_token or 0.0) * _PER_MILLION,
            cache_read=(entry.cache_read_cost_per_token or 0.0) * _PER_MILLION,
            cache_write=(entry.cache_write_cost_per_token or 0.0) * _PER_MILLION,
        ),
        wire=entry.wire,
    )
