"""LiteLLM over HTTP: one request function with its bounds and its mapping of errors."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel
from yarl import URL

from sidecar.aiokit import aside
from sidecar.config import GatewaySettings
from sidecar.errors import GatewayAuthenticationError, GatewayError, GatewayUnavailableError
from sidecar.gateway.failures import classify
from sidecar.gateway.redirects import RedirectError, following
from sidecar.gateway.upstream import api_root, excerpt, key_headers
from sidecar.wire.json_text import read_leniently
from sidecar.wire.litellm import (
    Deployment,
    ListedModel,
    Listing,
    ModelGroup,
    Skip,
    joined,
    read_items,
)

M = TypeVar("M", bound=BaseModel)

_MAX_BODY_BYTES = 64 * 1024 * 1024
_RETRY_AFTER_SECONDS = 5.0
_MAX_PAGES = 100
"""Of `/v1/models`. LiteLLM answers one; gateways in Anthropic's format may answer 20 models at a time."""


class GatewayClient:
    """Asks the gateway what it offers. Never retries: the catalogue above decides when to ask again.

    Every method raises GatewayAuthenticationError when the key is refused, GatewayUnavailableError when
    there is no usable answer, and GatewayError for any other refusal.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        base_url: str,
        api_key: str | None,
        session: aiohttp.ClientSession,
    ) -> None:
        self.root = api_root(base_url)
        self._settings = settings
        self._api_key = api_key
        self._session = session
        self._last: dict[str, tuple[bytes, Listing[Any]]] = {}

    async def list_models(self) -> Listing[ListedModel]:
        """Return `GET /v1/models`: what this key may call."""
        # Without `anthropic-version`: only the OpenAI shape carries `mode`.
        pages = [await self._list("/v1/models", ListedModel)]
        seen: set[str] = set()
        while (cursor := pages[-1].next_cursor) and cursor not in seen and len(pages) < _MAX_PAGES:
            seen.add(cursor)
            path = f"/v1/models?after_id={quote(cursor, safe='')}"
            try:
                pages.append(await self._list(path, ListedModel, is_kept=False))
            except GatewayUnavailableError:
                raise  # half a list would take models away that were there
            except GatewayError as error:
                skip = Skip(f"page {len(pages) + 1}", "", error.message)
                pages.append(Listing([], (skip,), 1))
        return joined(pages)

    async def model_group_info(self) -> Listing[ModelGroup]:
        """Return `GET /model_group/info`: limits and abilities per public name."""
        return await self._list("/model_group/info", ModelGroup)

    async def model_info(self) -> Listing[Deployment]:
        """Return `GET /v1/model/info`: the same per deployment; some gateways refuse ordinary keys."""
        return await self._list("/v1/model/info", Deployment)

    async def _list(self, path: str, kind: type[M], *, is_kept: bool = True) -> Listing[M]:
        body = await self._get(path)
        # The answers are megabytes for hundreds of models and seldom change: parsing one again would
        # hold up every running turn for nothing.
        digest = hashlib.blake2b(body).digest()
        last = self._last.get(path)
        if last is not None and last[0] == digest:
            return last[1]
        try:
            listing = await aside(len(body), lambda: read_items(kind, read_leniently(body)))
        except ValueError:
            listing = None
        if listing is None:
            raise GatewayUnavailableError(
                f"the gateway's {path} is not a list of models: {excerpt(body, self._api_key)}",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        if is_kept:
            self._last[path] = (digest, listing)
        return listing

    async def _get(self, path: str) -> bytes:
        timeout = aiohttp.ClientTimeout(
            total=self._settings.list_timeout_seconds,
            sock_connect=self._settings.connect_timeout_seconds,
        )
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        headers |= key_headers(self._api_key)
        url = URL(self.root + path, encoded=True)
        asking = following(self._session, "GET", url, headers=headers, timeout=timeout)
        try:
            async with asking as response:
                status, body = response.status, await _read_bounded(response)
        except RedirectError as error:
            raise self._unavailable(f"{path}: {error}") from error
        except TimeoutError as error:
            raise self._unavailable(f"{path}: no answer in time") from error
        except aiohttp.ClientError as error:
            raise self._unavailable(f"{path}: {error}") from error
        if status == 200:
            return body
        text = excerpt(body, self._api_key)
        if classify(status, body) == "authentication":
            raise GatewayAuthenticationError(
                f"the gateway refused the key (LITELLM_API_KEY) for {path}: {status} {text}"
            )
        if status >= 500:
            raise self._unavailable(f"{path}: {status} {text}")
        raise GatewayError(f"the gateway refused {path}: {status} {text}")

    def _unavailable(self, what: str) -> GatewayUnavailableError:
        return GatewayUnavailableError(
            f"the gateway cannot be used: {excerpt(what, self._api_key)}",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > _MAX_BODY_BYTES:
            raise aiohttp.ClientPayloadError("the answer is larger than 64 MB")
        chunks.append(chunk)
    return b"".join(chunks)
