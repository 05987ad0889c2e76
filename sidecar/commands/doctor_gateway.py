"""The doctor's checks of the gateway: reachable, key accepted, each list source, names in the settings."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from yarl import URL

from sidecar.commands.doctor_checks import Check, Finding, failure, ok, warning
from sidecar.commands.gateway import GatewayAccess, read_catalogue
from sidecar.config import Settings
from sidecar.errors import GatewayAuthenticationError, SidecarError
from sidecar.gateway.catalogue import CatalogueSnapshot
from sidecar.gateway.failures import classify
from sidecar.gateway.upstream import api_root, excerpt, key_headers
from sidecar.masking import masked_urls
from sidecar.naming import GATEWAY_PROVIDER
from sidecar.proxies import Proxies
from sidecar.wire.litellm import Listing

_COMPLETION_SECONDS = 60.0
_COMPLETION_TOKENS = 16


class GatewayChecks:
    """The checks; `snapshot` is known after they ran, None when the gateway gave no list."""

    def __init__(self, access: GatewayAccess, settings: Settings) -> None:
        self._access = access
        self._settings = settings
        self._client = access.client(settings.gateway)
        self.snapshot: CatalogueSnapshot | None = None

    def all(self, *, with_completion: bool) -> list[Check]:
        """Return the gateway's checks in order: one that fails may explain why those after it do."""
        client = self._client
        bound = self._settings.gateway.list_timeout_seconds + 5.0
        checks = [
            Check("proxy", self._proxy),
            Check("gateway", self._reachable, bound),
            Check(
                "limits and prices",
                lambda: self._richer_source("/v1/model/info", client.model_info),
                bound,
            ),
            Check(
                "group limits",
                lambda: self._richer_source("/model_group/info", client.model_group_info),
                bound,
            ),
            Check("catalogue", self._catalogue, bound),
            Check("names in settings", self._names),
        ]
        if with_completion:
            checks.append(Check("completion", self._completion, _COMPLETION_SECONDS))
        return checks

    @property
    def default_model(self) -> str | None:
        """The model of opencode's small calls: the configured one, else the first listed."""
        named = self._settings.gateway.default_model
        if self.snapshot is None:
            return named
        entry = self.snapshot.find(named) if named else None
        return entry.id if entry else next(iter(self.snapshot.listed), None)

    async def _proxy(self) -> Finding:
        url = masked_urls(self._access.url)
        way = Proxies.from_environment().describe(URL(self._access.url))
        return ok(f"{url} is reached {way}; loopback and opencode always directly")

    async def _reachable(self) -> Finding:
        if self._access.is_demo:
            return warning(
                "no LITELLM_BASE_URL: the embedded DEMO gateway with scripted answers is used",
                "set LITELLM_BASE_URL and LITELLM_API_KEY to your LiteLLM gateway's",
            )
        url = masked_urls(self._access.url)
        try:
            models = (await self._client.list_models()).items
        except GatewayAuthenticationError as error:
            has_key = self._access.key is not None
            fix = "set LITELLM_API_KEY to a key of that gateway"
            return failure(error.message, fix if has_key else f"{fix}; none is set")
        except SidecarError as error:
            return failure(
                f"{url}: {error.message}",
                "check LITELLM_BASE_URL, the network, and that the gateway runs",
            )
        if not models:
            return failure(
                f"{url} answers, and lists no models for this key",
                "give the key access to models in LiteLLM",
            )
        key = "accepts the key" if self._access.key else "wants no key"
        return ok(f"{url} answers, {key}, lists {len(models)} models")

    async def _richer_source(
        self, path: str, ask: Callable[[], Awaitable[Listing[Any]]]
    ) -> Finding:
        try:
            items = (await ask()).items
        except SidecarError as error:
            return warning(
                f"{path}: {error.message}",
                "not needed: other sources and defaults fill in; allow the route for this key in LiteLLM, "
                "or give numbers in SIDECAR_GATEWAY_OVERRIDES",
            )
        return ok(f"{path} lists {len(items)} models")

    async def _catalogue(self) -> Finding:
        try:
            self.snapshot = await read_catalogue(self._access, self._settings.gateway)
        except SidecarError as error:
            return failure(f"no catalogue can be made: {error.message}", "see the lines above")
        listed = len(self.snapshot.listed)
        hidden = len(self.snapshot.entries) - listed
        if not listed:
            return failure(
                f"no model is listed, {hidden} are hidden",
                "`opencode-sidecar models --hidden` says why",
            )
        unknown = sum(
            self.snapshot.entries[i].max_input_tokens is None for i in self.snapshot.listed
        )
        text = f"{listed} models listed, {hidden} hidden"
        skipped = [skip for skips in self.snapshot.skipped.values() for skip in skips]
        if skipped:
            return warning(
                f"{text}; {sum(self.snapshot.skipped_counts.values())} items or fields cannot be read, "
                f"first {skipped[0].item} {skipped[0].field}: {skipped[0].reason}",
                "correct them in LiteLLM's model_info, or override them in SIDECAR_GATEWAY_OVERRIDES",
            )
        if unknown:
            return warning(
                f"{text}; the context of {unknown} is not known and taken to be 128000 tokens",
                "give max_input_tokens in LiteLLM's model_info or in SIDECAR_GATEWAY_OVERRIDES",
            )
        return ok(text)

    async def _names(self) -> Finding:
        settings, snapshot = self._settings.gateway, self.snapshot
        if snapshot is None:
            return warning("not checked, there is no catalogue", "see the lines above")
        named = {settings.default_model: "LITELLM_DEFAULT_MODEL"} if settings.default_model else {}
        if unknown := [name for name in named if name and snapshot.find(name) is None]:
            return failure(
                f"LITELLM_DEFAULT_MODEL: {unknown[0]!r} is not offered by the gateway",
                "choose one of `opencode-sidecar models`, or unset it",
            )
        stray = [
            f"alias {a!r} -> {m!r}"
            for a, m in settings.aliases.items()
            if m not in snapshot.entries
        ]
        stray += [f"override of {m!r}" for m in settings.overrides if m not in snapshot.entries]
        if stray:
            return warning(
                f"not offered by the gateway: {', '.join(stray[:5])}",
                "correct SIDECAR_GATEWAY_ALIASES and SIDECAR_GATEWAY_OVERRIDES",
            )
        return ok(f"the default model is {self.default_model}")

    async def _completion(self) -> Finding:
        model = self.default_model
        if model is None:
            return failure("no model to ask", "see the lines above")
        model = model.removeprefix(f"{GATEWAY_PROVIDER}/")
        entry = self.snapshot.entries.get(model) if self.snapshot else None
        is_messages = entry is not None and entry.wire == "messages"
        path = "messages" if is_messages else "chat/completions"
        body = {
            "model": model,
            "max_tokens": _COMPLETION_TOKENS,
            "messages": [{"role": "user", "content": "Answer with the word: pong"}],
        }
        headers = key_headers(self._access.key, is_messages=is_messages)
        if is_messages:
            headers |= {"anthropic-version": "2023-06-01"}
        fix = "try the same request with curl against the gateway; its log says more"
        try:
            async with self._access.session.post(
                f"{api_root(self._access.url)}/v1/{path}", json=body, headers=headers
            ) as response:
                raw = await response.read()
        except aiohttp.ClientError as error:
            return failure(f"{model}: {type(error).__name__}: {error}", fix)
        if response.status != 200:
            kind = classify(response.status, raw)
            text = excerpt(raw, self._access.key)
            return failure(f"{model} by /v1/{path}: {response.status} ({kind}): {text}", fix)
        if not _has_answer(raw):
            return failure(f"{model} by /v1/{path}: the answer holds no message", fix)
        return ok(f"{model} answers by /v1/{path}")


def _has_answer(raw: bytes) -> bool:
    try:
        body = json.loads(raw)
    except ValueError:
        return False
    return isinstance(body, dict) and bool(body.get("choices") or body.get("content"))
