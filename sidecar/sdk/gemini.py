"""The `gemini` runtime (shapes: `sidecar.wire.gemini`), and the pattern for any further one."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from sidecar.sdk.endpoints import Endpoint, header
from sidecar.sdk.errors import BadAnswerError
from sidecar.sdk.models import ModelInfo, ModelPage
from sidecar.sdk.paging import Fetched, make_page, walk
from sidecar.sdk.runtime import Runtime
from sidecar.sdk.transport import Upstream
from sidecar.wire.gemini import GeminiModel, GeminiModels

_PAGE_SIZE = "1000"
_PREFIX = "models/"
_CONVERSATION = "generateContent"


def _is_refused_key(body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return any(
        isinstance(detail, dict) and detail.get("reason") == "API_KEY_INVALID"
        for detail in (details if isinstance(details, list) else [])
    )


class GeminiRuntime(Runtime):
    """`GEMINI_API_KEY`, and `GEMINI_BASE_URL`. Lists the models that generate content."""

    name = "gemini"
    endpoints = (
        Endpoint(
            name="gemini",
            key_variable="GEMINI_API_KEY",
            base_url_variable="GEMINI_BASE_URL",
            default_base_url="https://generativelanguage.googleapis.com",
            authorise=header("x-goog-api-key"),
            version_path="/v1beta",
            refuses_key=_is_refused_key,
        ),
    )

    async def list_models(self, upstream: Upstream) -> ModelPage:
        """Walk all pages by `pageToken`."""

        async def fetch(cursor: str | None) -> Fetched:
            query = {"pageSize": _PAGE_SIZE} | ({"pageToken": cursor} if cursor else {})
            body = await upstream.get_json("/v1beta/models", query=query)
            try:
                page = GeminiModels.model_validate(body)
            except ValidationError as error:
                raise BadAnswerError(
                    "the answer is JSON and not a list of models", runtime=self.name
                ) from error
            return Fetched([m for m in page.models if _generates(m)], page.next_page_token)

        walked = await walk(fetch, max_pages=upstream.policy.max_pages, runtime=self.name)
        return make_page(self.name, walked.items, self._read, has_more=walked.has_more)

    def _read(self, item: Any) -> ModelInfo | None:
        try:
            model = GeminiModel.model_validate(item)
        except ValidationError:
            return None
        fields = {
            "id": model.name.removeprefix(_PREFIX),
            "display_name": model.display_name,
            "max_input_tokens": model.input_token_limit,
            "max_tokens": model.output_token_limit,
        }
        return ModelInfo.read(fields, runtime=self.name, raw=item)


def _generates(item: Any) -> bool:
    """Whether the model answers prompts; embedding models say otherwise, and silence counts as yes."""
    methods = item.get("supportedGenerationMethods") if isinstance(item, dict) else None
    return not isinstance(methods, list) or _CONVERSATION in methods
