"""The catalogue: our merged, filtered, aged view of what the gateway offers.

Refreshed on a timer and on demand, single-flight. The last good copy is served from memory, and after a
restart from disk, whatever the gateway does; reading it never waits for the gateway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import structlog

from sidecar.aiokit import (
    Backoff,
    Callbacks,
    NextFlight,
    SingleFlight,
    TaskOwner,
    aside,
    cancel_and_wait,
)
from sidecar.config import GatewaySettings
from sidecar.errors import (
    GatewayError,
    GatewayUnavailableError,
    InvalidRequestError,
    SidecarError,
)
from sidecar.gateway import catalogue_file, merge
from sidecar.gateway.client import GatewayClient
from sidecar.gateway.merge import CatalogueEntry
from sidecar.gateway.rules import rules_of
from sidecar.naming import (
    GATEWAY_PROVIDER,
    ModelRef,
    UnknownModelError,
    look_up,
    qualify,
)
from sidecar.wire.litellm import Listing, Skip

__all__ = ["Catalogue", "CatalogueEntry", "CatalogueSnapshot"]

Origin = Literal["gateway", "disk", "fallback"]
ChangeCallback = Callable[["CatalogueSnapshot"], object]
SourceFacts = dict[str, dict[str, Any]]

_UNAVAILABLE_RETRY_SECONDS = 5.0

_MODEL_BYTES = 500
"""Of a model in a list, about: long lists are read in a thread."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogueSnapshot:
    """The catalogue at one moment. Immutable; replaced as a whole.

    `entries` has hidden models too, `listed` the ids to show in their order. `fetched_at` is seconds
    since the epoch. `generation` changes only when `entries` do. `failed_sources` says per source why
    it failed in the last refresh, `skipped` what could not be read in its answer; `skipped_counts` has the
    number, of which the first are named.
    """

    entries: Mapping[str, CatalogueEntry]
    listed: tuple[str, ...]
    aliases: Mapping[str, str]
    fetched_at: float
    generation: int
    failed_sources: Mapping[str, str]
    origin: Origin
    skipped: Mapping[str, tuple[Skip, ...]]
    skipped_counts: Mapping[str, int]

    @property
    def age_seconds(self) -> float:
        """Seconds since the gateway said this."""
        return max(0.0, time.time() - self.fetched_at)

    def find(self, name: str) -> CatalogueEntry | None:
        """Return the entry of an id, a `litellm/`-prefixed id or an alias; None when there is none."""
        ref = look_up(name, self.entries, aliases=self.aliases)
        return self.entries[ref.model_id] if ref is not None else None


class Catalogue:
    """Owns the snapshot and everything that replaces it. Raises SettingsError for a wrong override."""

    def __init__(
        self,
        *,
        client: GatewayClient,
        settings: GatewaySettings,
        file: Path,
        tasks: TaskOwner,
    ) -> None:
        self._client = client
        self._settings = settings
        self._file = file
        self._tasks = tasks
        self._rules = rules_of(settings)
        self._snapshot: CatalogueSnapshot | None = None
        self._facts: dict[str, SourceFacts] = {}
        self._skipped: dict[str, Listing[Any]] = {}
        self._saved: dict[str, SourceFacts] | None = None
        self._changed = Callbacks[["CatalogueSnapshot"]]("change of the catalogue")
        self._flight = SingleFlight(tasks, "refresh", self._refresh_once)
        self._next_flight = NextFlight(
            tasks,
            "refresh after a miss",
            self._flight,
            pause_seconds=settings.miss_refresh_seconds,
        )
        self._timer: asyncio.Task[None] | None = None
        self._last_error: SidecarError | None = None
        self._has_answered_empty = False
        self.refreshes = 0
        """How often the gateway was read, failures included."""
        self.failed_refreshes = 0

    @property
    def snapshot(self) -> CatalogueSnapshot | None:
        """What is known now, None while nothing ever was."""
        return self._snapshot

    @property
    def last_error(self) -> SidecarError | None:
        """Why the last refresh failed, None when it did not."""
        return self._last_error

    @property
    def stale_seconds(self) -> float | None:
        """The age of what is served if it is only the last good, None while it is fresh."""
        snapshot = self._snapshot
        if snapshot is None or (snapshot.origin == "gateway" and self._last_error is None):
            return None
        return snapshot.age_seconds

    def on_change(self, callback: ChangeCallback) -> None:
        """Call `callback(snapshot)` whenever the entries change. It must not block."""
        self._changed.add(callback)

    def load(self) -> None:
        """Take the disk copy, else the fallback list; neither is there: nothing."""
        saved = catalogue_file.load(self._file, gateway_url=self._client.root)
        if saved is not None:
            self._facts = {name: saved.facts.get(name, {}) for name in merge.SOURCES}
            self._saved = dict(self._facts)
            entries = self._merged(self._facts)
            self._publish(entries, fetched_at=saved.fetched_at, origin="disk", failed={})
        elif self._settings.models:
            names = (n.removeprefix(f"{GATEWAY_PROVIDER}/") for n in self._settings.models)
            self._facts = {"models": {name: {} for name in names}}
            entries = self._merged(self._facts)
            self._publish(entries, fetched_at=time.time(), origin="fallback", failed={})

    def start(self) -> None:
        """Start the periodic refresh. Call `load` first to serve the cached list at once."""
        self._timer = self._tasks.start("catalogue timer", self._run_timer())

    async def close(self) -> None:
        """Stop refreshing."""
        await cancel_and_wait(self._timer)

    async def refresh(self) -> CatalogueSnapshot:
        """Read the gateway now, or share the read under way, and return the result.

        Raises GatewayError or one of its kinds when it fails; what was known stays.
        """
        error = await self._flight()
        if error is not None:
            raise error
        assert self._snapshot is not None
        return self._snapshot

    async def resolve(self, name: str, field: str = "model") -> tuple[ModelRef, CatalogueEntry]:
        """Return the model that a client's name means, and what is known of it.

        A name is refused only by a list that was read after this call: an unknown one waits for the next
        refresh, which all callers share. Raises InvalidRequestError that names `field` and near matches,
        also for a model that no request can name, and GatewayUnavailableError while the gateway does not
        answer.
        """
        snapshot = self._snapshot
        if snapshot is not None:
            ref = look_up(name, snapshot.entries, aliases=self._settings.aliases)
            if ref is not None:
                return ref, _usable(name, field, snapshot.entries[ref.model_id])
        error = await self._next_flight()
        return self._resolve_last(name, field, self._snapshot, error)

    def _resolve_last(
        self,
        name: str,
        field: str,
        snapshot: CatalogueSnapshot | None,
        refresh_error: SidecarError | None,
    ) -> tuple[ModelRef, CatalogueEntry]:
        entries: Mapping[str, CatalogueEntry] = snapshot.entries if snapshot else {}
        try:
            ref = qualify(
                name,
                entries,
                aliases=self._settings.aliases,
                suggest_from=snapshot.listed if snapshot else (),
            )
        except UnknownModelError as error:
            if refresh_error is None:
                raise InvalidRequestError(error.sentence(field), field=field) from error
            raise GatewayUnavailableError(
                f"{field}: {name[:200]!r} is in no list that was read so far, and the gateway's list cannot "
                f"be read now: {refresh_error.message}",
                field=field,
                retry_after_seconds=_UNAVAILABLE_RETRY_SECONDS,
            ) from error
        return ref, _usable(name, field, entries[ref.model_id])

    async def _run_timer(self) -> None:
        backoff = Backoff(first=1.0, longest=self._settings.refresh_seconds)
        while True:
            if await self._flight() is None:
                backoff.reset()
                await asyncio.sleep(self._settings.refresh_seconds)
            else:
                await asyncio.sleep(backoff.next_delay())

    async def _refresh_once(self) -> SidecarError | None:
        """Refresh once. Returns the error instead of raising: a failed refresh is expected."""
        error = await self._refresh_logged()
        self.refreshes += 1
        self.failed_refreshes += error is not None
        return error

    async def _refresh_logged(self) -> SidecarError | None:
        try:
            await self._read_gateway()
        except GatewayError as error:
            if self._last_error is None or type(self._last_error) is not type(error):
                has_list = self._snapshot is not None
                _log.warning("catalogue refresh failed", error=error.message, serving_last=has_list)
            self._last_error = error
            return error
        except Exception as error:
            _log.error("catalogue refresh broke", exc_info=error)
            self._last_error = GatewayError("the gateway's list of models could not be understood")
            return self._last_error
        if self._last_error is not None:
            _log.info("catalogue refresh works again")
        self._last_error = None
        return None

    async def _read_gateway(self) -> None:
        asked: dict[str, Awaitable[tuple[Listing[Any], SourceFacts]]] = {
            "models": _read(self._client.list_models, merge.facts_of_list),
            "model_group_info": _read(self._client.model_group_info, merge.facts_of_groups),
            "model_info": _read(self._client.model_info, merge.facts_of_deployments),
        }
        answers = dict(
            zip(asked, await asyncio.gather(*asked.values(), return_exceptions=True), strict=True)
        )
        answer_of_models = answers["models"]
        if isinstance(answer_of_models, BaseException):
            raise answer_of_models
        models = answer_of_models[1]
        self._check_empty(models)
        failed = {}
        facts: dict[str, SourceFacts] = {}
        skipped: dict[str, Listing[Any]] = {}
        for name, answer in answers.items():
            if isinstance(answer, GatewayError):
                failed[name] = answer.message
                # What the richer source said last is better than an entry that changes to and fro.
                facts[name] = self._facts.get(name, {})
            elif isinstance(answer, BaseException):
                raise answer
            else:
                skipped[name], facts[name] = answer
            facts[name] = {model: facts[name][model] for model in models if model in facts[name]}
        self._log_sources(failed)
        self._log_skipped(skipped)
        entries = await aside(_MODEL_BYTES * len(models), lambda: self._merged(facts))
        self._facts, self._skipped = facts, skipped
        self._publish(entries, fetched_at=time.time(), origin="gateway", failed=failed)
        await self._save()

    def _check_empty(self, models: SourceFacts) -> None:
        """Refuse an empty list once: a restarted gateway may return one. Raises GatewayError."""
        is_new = not self._has_answered_empty
        self._has_answered_empty = not models
        had_none = self._snapshot is None or self._snapshot.origin == "fallback"
        if not models and (is_new or had_none):
            raise GatewayUnavailableError(
                "the gateway lists no models", retry_after_seconds=_UNAVAILABLE_RETRY_SECONDS
            )

    def _merged(self, sources: Mapping[str, SourceFacts]) -> dict[str, CatalogueEntry]:
        layers = {
            model: {name: facts[model] for name, facts in sources.items() if model in facts}
            for model in sources.get("models", {})
        }
        return merge.merge(layers, self._rules)

    def _publish(
        self,
        entries: dict[str, CatalogueEntry],
        *,
        fetched_at: float,
        origin: Origin,
        failed: Mapping[str, str],
    ) -> None:
        old = self._snapshot
        has_changed = old is None or dict(old.entries) != entries
        generation = old.generation if old is not None else 0
        snapshot = CatalogueSnapshot(
            entries=MappingProxyType(entries),
            listed=merge.listed_order(entries.values()),
            aliases=self._settings.aliases,
            fetched_at=fetched_at,
            generation=generation + 1 if has_changed else generation,
            failed_sources=MappingProxyType(dict(failed)),
            origin=origin,
            skipped={name: listing.skipped for name, listing in self._skipped.items()},
            skipped_counts={name: listing.skipped_count for name, listing in self._skipped.items()},
        )
        self._snapshot = snapshot
        if not has_changed:
            return
        _log.info(
            "catalogue changed", listed=len(snapshot.listed), known=len(entries), origin=origin
        )
        self._changed(snapshot)

    def _log_sources(self, failed: Mapping[str, str]) -> None:
        before = self._snapshot.failed_sources if self._snapshot else {}
        for name in failed.keys() - before.keys():
            _log.warning("catalogue source failed", catalogue_source=name, error=failed[name])

    def _log_skipped(self, skipped: Mapping[str, Listing[Any]]) -> None:
        for name, listing in skipped.items():
            before = self._skipped.get(name)
            if listing.skipped and (before is None or before.skipped != listing.skipped):
                first = listing.skipped[0]
                _log.warning(
                    "catalogue items or fields skipped",
                    catalogue_source=name,
                    count=listing.skipped_count,
                    first=f"{first.item} {first.field}: {first.reason}",
                )

    async def _save(self) -> None:
        if self._facts == self._saved:
            return
        facts = self._facts
        try:
            await asyncio.to_thread(
                catalogue_file.save,
                self._file,
                gateway_url=self._client.root,
                fetched_at=time.time(),
                facts=facts,
            )
        except OSError as error:
            _log.warning("catalogue not saved", file=str(self._file), error=str(error))
            return
        self._saved = facts


def _usable(name: str, field: str, entry: CatalogueEntry) -> CatalogueEntry:
    """Return the entry. Raises InvalidRequestError for a model that no request can name."""
    if not entry.is_usable:
        raise InvalidRequestError(
            f"{field}: {name[:200]!r} cannot be used: {entry.hidden_because}", field=field
        )
    return entry


async def _read(
    ask: Callable[[], Awaitable[Listing[Any]]], read: Callable[[list[Any]], SourceFacts]
) -> tuple[Listing[Any], SourceFacts]:
    listing = await ask()
    return listing, await aside(_MODEL_BYTES * len(listing.items), lambda: read(listing.items))
