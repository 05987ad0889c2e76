"""`/v1/models?runtime=cursor|anthropic`: other runtimes' lists for callers that cannot hold their keys.

The policy is the catalogue's: one read at a time, the last good list in memory and on disk, its age
said when it is served in place of a fresh one. A list is read on request, not on a timer: it may
never be needed. It is returned as the runtime gives it; this server runs none of these models.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web
from pydantic import SecretStr, ValidationError

from sidecar import sdk
from sidecar.aiokit import NextFlight, SingleFlight, TaskOwner
from sidecar.config import RuntimesSettings, env_name
from sidecar.errors import (
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    RuntimeListError,
    RuntimeListUnavailableError,
    SidecarError,
)
from sidecar.http.model_pages import ModelsQuery, conditional, etag_of
from sidecar.http.responses import encode
from sidecar.store import disk_cache

NOT_CONFIGURED = "runtime_not_configured"
"""The `error_code` with which a program distinguishes a list that is switched off from a wrong request."""

_LONGEST_WAIT_SECONDS = 25.0
"""For the very first list; vendors answer in well under a second, their bad days take longer."""
_STALE_WAIT_SECONDS = 2.5
"""For a fresh list when an older one is at hand. Claude Code gives up after 3 s."""
_RETRY_AFTER_SECONDS = 5.0
_MISS_PAUSE_SECONDS = 2.0
"""Shortest time between two reads for ids that the list does not have."""
_POLICY = sdk.RequestPolicy(request_timeout_seconds=10.0, max_retries=1)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Access:
    """How one runtime is reached; `key` None means switched off."""

    key: SecretStr | None
    base_url: str | None
    key_variable: str

    @property
    def fingerprint(self) -> str:
        """Identifies the account: a list kept for one key is not served for another."""
        key = self.key.get_secret_value() if self.key else ""
        return hashlib.blake2b(f"{self.base_url}\n{key}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class _Kept:
    """The last good list; `fetched_at` is seconds since the epoch."""

    page: sdk.ModelPage
    fetched_at: float

    @property
    def age_seconds(self) -> float:
        return max(0.0, time.time() - self.fetched_at)

    def find(self, model_id: str) -> sdk.ModelInfo | None:
        """Return a model of the list, None when it is not there."""
        return next((model for model in self.page if model.id == model_id), None)


class RuntimeModels:
    """Serves the lists of those runtimes whose keys are set."""

    def __init__(
        self,
        *,
        settings: RuntimesSettings,
        session: aiohttp.ClientSession,
        tasks: TaskOwner,
        directory: Path,
    ) -> None:
        access = _access(settings)
        # `environ` is empty: what is on and off is said by the settings alone.
        client = sdk.AsyncClient(
            api_keys={n: a.key.get_secret_value() for n, a in access.items() if a.key},
            base_urls={n: a.base_url for n, a in access.items() if a.key and a.base_url},
            policy=_POLICY,
            environ={},
            session=session,
        )
        self._access = access
        self._lists = {
            name: _CachedList(
                name,
                client=client,
                tasks=tasks,
                refresh_seconds=settings.refresh_seconds,
                file=directory / f"{name}.json",
                fingerprint=entry.fingerprint,
            )
            for name, entry in access.items()
            if entry.key is not None
        }

    async def list(self, request: web.Request, runtime: str, query: ModelsQuery) -> web.Response:
        """Answer `GET /v1/models?runtime=`, paged like our own list; `refresh` reads it anew.

        Raises InvalidRequestError for a runtime that is unknown or switched off, and what `_CachedList`
        raises while there is no list at all.
        """
        kept_list = self._list_of(runtime)
        kept = await kept_list.get(is_refresh=query.refresh)
        models = {
            model.id: model
            for model in kept.page
            if not query.lifecycles or model.lifecycle in query.lifecycles
        }
        shown = query.of(tuple(models), lambda model_id: models[model_id].model_dump(mode="json"))
        if kept.page.has_more and shown["last_id"] == kept.page.last_id:
            shown["has_more"] = True  # the runtime has more than we walked
        body = encode(shown | {"runtime": runtime})
        stale_seconds = kept_list.stale_seconds
        return conditional(request, body, etag_of(body), stale_seconds=stale_seconds)

    async def retrieve(self, request: web.Request, runtime: str, model_id: str) -> web.Response:
        """Answer `GET /v1/models/{id}?runtime=` from the list. An id is refused only by a list that was read
        after the request came. Raises NotFoundError and as `list`."""
        kept_list = self._list_of(runtime)
        model = (await kept_list.get(is_refresh=False)).find(model_id)
        if model is None:
            model = (await kept_list.get_next()).find(model_id)
        if model is None:
            raise NotFoundError(f"model: {model_id[:200]!r} is not listed by {runtime}")
        body = encode(model.model_dump(mode="json"))
        stale_seconds = kept_list.stale_seconds
        return conditional(request, body, etag_of(body), stale_seconds=stale_seconds)

    def _list_of(self, runtime: str) -> _CachedList:
        access = self._access.get(runtime)
        if access is None:
            known = ", ".join(["opencode", *self._access])
            raise InvalidRequestError(
                f"runtime: {runtime[:80]!r} is not served here; known: {known}", field="runtime"
            )
        if access.key is None:
            raise InvalidRequestError(
                f"runtime: {runtime} is not configured on this server: set {access.key_variable} "
                f"(or {access.key_variable}_FILE) there",
                field="runtime",
                error_code=NOT_CONFIGURED,
            )
        return self._lists[runtime]


class _CachedList:
    """One runtime's list and everything that replaces it."""

    def __init__(
        self,
        runtime: str,
        *,
        client: sdk.AsyncClient,
        tasks: TaskOwner,
        refresh_seconds: float,
        file: Path,
        fingerprint: str,
    ) -> None:
        self._runtime = runtime
        self._client = client
        self._refresh_seconds = refresh_seconds
        self._file = file
        self._fingerprint = fingerprint
        self._kept = self._load()
        self._last_error: SidecarError | None = None
        self._flight = SingleFlight(tasks, f"models of {runtime}", self._refresh)
        self._next_flight = NextFlight(
            tasks,
            f"models of {runtime} after a miss",
            self._flight,
            pause_seconds=_MISS_PAUSE_SECONDS,
        )

    @property
    def stale_seconds(self) -> float | None:
        """The age of what is served if it is only the last good, None while it is fresh."""
        if self._kept is None:
            return None
        age = self._kept.age_seconds
        return age if self._last_error is not None or age > self._refresh_seconds else None

    async def get(self, *, is_refresh: bool) -> _Kept:
        """Return the list, read anew when it is old or that is asked for.

        Raises RateLimitedError, RuntimeListError or RuntimeListUnavailableError when there never was one.
        """
        held = self._kept
        if held is not None and not is_refresh and held.age_seconds <= self._refresh_seconds:
            return held
        wait = _LONGEST_WAIT_SECONDS if held is None or is_refresh else _STALE_WAIT_SECONDS
        error = await self._bounded(self._flight, wait)
        if self._kept is not None:
            return self._kept
        assert error is not None
        raise error

    async def get_next(self) -> _Kept:
        """Return a list that is read from now on, by a read that all callers share. Raises as `get`."""
        error = await self._bounded(self._next_flight, _LONGEST_WAIT_SECONDS)
        if error is not None:
            raise error
        assert self._kept is not None
        return self._kept

    async def _bounded(
        self, flight: Callable[[], Awaitable[SidecarError | None]], seconds: float
    ) -> SidecarError | None:
        """Wait for a read of the list; return what went wrong."""
        try:
            async with asyncio.timeout(seconds):
                return await flight()
        except TimeoutError:  # the read goes on for the next caller
            return RuntimeListUnavailableError(
                f"{self._runtime}: no list of models within {seconds:g} s",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )

    async def _refresh(self) -> SidecarError | None:
        """Read the list; return what went wrong rather than raise it, for many may wait."""
        try:
            page_ = await self._client.models.list(self._runtime)
        except sdk.ModelsError as error:
            self._last_error = _translate(error)
            _log.warning(
                "models of runtime not read",
                runtime=self._runtime,
                error=str(error),
                serving_last=self._kept is not None,
            )
            return self._last_error
        self._last_error = None
        self._kept = _Kept(page_, time.time())
        await self._save(self._kept)
        return None

    def _load(self) -> _Kept | None:
        saved = disk_cache.load(self._file, fingerprint=self._fingerprint)
        if saved is None:
            return None
        try:
            return _Kept(sdk.ModelPage.model_validate(saved.content), saved.fetched_at)
        except ValidationError:
            _log.warning("kept models of runtime unreadable, ignored", runtime=self._runtime)
            return None

    async def _save(self, kept: _Kept) -> None:
        try:
            await asyncio.to_thread(
                disk_cache.save,
                self._file,
                fingerprint=self._fingerprint,
                fetched_at=kept.fetched_at,
                content=kept.page.model_dump(mode="json"),
            )
        except OSError as error:
            _log.warning("models of runtime not kept", runtime=self._runtime, error=str(error))


def _access(settings: RuntimesSettings) -> Mapping[str, _Access]:
    def access(key: SecretStr | None, base_url: str | None, key_field: str) -> _Access:
        return _Access(key, base_url, env_name(RuntimesSettings, key_field))

    return {
        "anthropic": access(
            settings.anthropic_api_key, settings.anthropic_base_url, "anthropic_api_key"
        ),
        "cursor": access(settings.cursor_api_key, settings.cursor_base_url, "cursor_api_key"),
    }


def _translate(error: sdk.ModelsError) -> SidecarError:
    """Say it in the server's terms: a vendor's refusal of our key is not the caller's fault."""
    message = str(error)
    if isinstance(error, sdk.RateLimitedError):
        return RateLimitedError(message, retry_after_seconds=error.retry_after_seconds)
    if isinstance(error, sdk.UnavailableError):
        return RuntimeListUnavailableError(
            message, retry_after_seconds=error.retry_after_seconds or _RETRY_AFTER_SECONDS
        )
    return RuntimeListError(message)
