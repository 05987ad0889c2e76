"""The `cursor` runtime: Cursor's Cloud Agents API (shapes: `sidecar.wire.cursor`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from sidecar.sdk.endpoints import Endpoint, basic, bearer
from sidecar.sdk.errors import BadAnswerError, ModelsError
from sidecar.sdk.models import ModelInfo, ModelPage
from sidecar.sdk.paging import Fetched, make_page, walk
from sidecar.sdk.runtime import Runtime, unknown_model
from sidecar.sdk.transport import Upstream
from sidecar.wire.cursor import CursorModel, CursorModelsV0, CursorModelsV1

_ROUTE_IS_MISSING = frozenset({404, 405, 410})
"""Answers of v1 that mean "not served here" and make the SDK ask v0."""


class CursorRuntime(Runtime):
    """`CURSOR_API_KEY`, and `CURSOR_BASE_URL` for something in front.

    Cursor takes the key as HTTP Basic, its documentation's first choice, and as Bearer; pass
    `runtimes=[CursorRuntime(auth="bearer")]` where something in front takes only that. Ids are exact: a
    listed model may still be refused for an account.
    """

    name = "cursor"
    endpoints: tuple[Endpoint, ...] = (
        Endpoint(
            name="cursor",
            key_variable="CURSOR_API_KEY",
            base_url_variable="CURSOR_BASE_URL",
            default_base_url="https://api.cursor.com",
            authorise=basic,
        ),
    )

    def __init__(self, *, auth: Literal["basic", "bearer"] = "basic") -> None:
        authorise = bearer if auth == "bearer" else basic
        self.endpoints = tuple(replace(e, authorise=authorise) for e in type(self).endpoints)

    async def list_models(self, upstream: Upstream) -> ModelPage:
        """Ask v1; where that route does not exist, v0."""
        try:
            return await self._list_v1(upstream)
        except ModelsError as error:
            if error.status not in _ROUTE_IS_MISSING:
                raise
        try:
            v0 = CursorModelsV0.model_validate(await upstream.get_json("/v0/models"))
        except ValidationError as error:
            raise self._unknown_shape("models", error) from error
        return make_page(self.name, v0.models, self._read)

    async def retrieve_model(self, upstream: Upstream, model_id: str) -> ModelInfo:
        """Find the model in the list, by id or by one of Cursor's aliases."""
        page = await self.list_models(upstream)
        by_alias = None
        for model in page:
            if model.id == model_id:
                return model
            aliases = model.raw.get("aliases") if isinstance(model.raw, dict) else None
            if by_alias is None and isinstance(aliases, list) and model_id in aliases:
                by_alias = model
        if by_alias is None:
            raise unknown_model(self.name, model_id, (model.id for model in page))
        return by_alias

    async def _list_v1(self, upstream: Upstream) -> ModelPage:
        async def fetch(cursor: str | None) -> Fetched:
            query = {} if cursor is None else {"cursor": cursor}
            body = await upstream.get_json("/v1/models", query=query)
            try:
                page = CursorModelsV1.model_validate(body)
            except ValidationError as error:
                raise self._unknown_shape("items", error) from error
            return Fetched(page.items, page.next_cursor)

        walked = await walk(fetch, max_pages=upstream.policy.max_pages, runtime=self.name)
        return make_page(self.name, walked.items, self._read, has_more=walked.has_more)

    def _read(self, item: Any) -> ModelInfo | None:
        if isinstance(item, str):
            return ModelInfo.read({"id": item}, runtime=self.name, raw=item)
        try:
            model = CursorModel.model_validate(item)
        except ValidationError:
            return None
        fields = {"id": model.id, "display_name": model.display_name}
        return ModelInfo.read(fields, runtime=self.name, raw=item)

    def _unknown_shape(self, key: str, error: ValidationError) -> BadAnswerError:
        where = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        return BadAnswerError(
            f"the answer is JSON and not a list of models: {where or key} is missing or wrong",
            runtime=self.name,
        )
