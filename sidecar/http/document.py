"""`GET /openapi.json`. It holds no secret, and needs no key: what reads it has often none yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from sidecar.http import declare
from sidecar.http.model_pages import CONDITIONAL, IF_NONE_MATCH, conditional, etag_of
from sidecar.http.openapi import make_document
from sidecar.http.responses import encode
from sidecar.wire.objects.common import AnyObject


class DocumentApi:
    """The description of this API."""

    def __init__(self, *, apis: Sequence[type], is_key_required: bool) -> None:
        """`apis` are the classes whose routes are served beside this one."""
        self._apis = [*apis, DocumentApi]
        self._is_key_required = is_key_required
        self._made: tuple[bytes, str] | None = None

    @declare.get("/openapi.json", response=AnyObject, others=CONDITIONAL, headers=(IF_NONE_MATCH,))
    async def document(self, request: web.Request) -> web.Response:
        """This document: OpenAPI 3.1."""
        if self._made is None:
            self._made = await asyncio.to_thread(self._make)  # a third of a second
        body, etag = self._made
        return conditional(request, body, etag, stale_seconds=None)

    def _make(self) -> tuple[bytes, str]:
        body = encode(make_document(self._apis, is_key_required=self._is_key_required))
        return body, etag_of(body)
