"""The `opencode` runtime: a sidecar, or the LiteLLM gateway itself where there is no sidecar.

The sidecar has filtered and merged its list already. LiteLLM is asked in the OpenAI shape, because
only that one has each model's `mode`; models that cannot hold a conversation, wildcards and LiteLLM's
placeholders are then left out here. LiteLLM without its database answers a wrong key with 400 and
`no_db_connection`.
"""

from __future__ import annotations

from typing import Any

from sidecar.sdk.endpoints import Endpoint, bearer, header
from sidecar.sdk.models import ModelInfo, ModelPage
from sidecar.sdk.paging import make_page
from sidecar.sdk.runtime import Runtime, unknown_model
from sidecar.sdk.shapes import fetch_anthropic, read_item, walk_anthropic
from sidecar.sdk.transport import Upstream
from sidecar.wire.litellm import PLACEHOLDERS

_CONVERSATION_MODES = frozenset({"chat", "responses"})
_SIDECAR_HEADERS = {"anthropic-version": "2023-06-01"}


def _is_refused_key(body: Any) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and error.get("type") == "no_db_connection"


SIDECAR = Endpoint(
    name="opencode",
    key_variable="SIDECAR_API_KEY",
    base_url_variable="SIDECAR_BASE_URL",
    default_base_url="http://127.0.0.1:8080",
    authorise=header("x-api-key"),
    is_key_required=False,
)
LITELLM = Endpoint(
    name="litellm",
    key_variable="LITELLM_API_KEY",
    base_url_variable="LITELLM_BASE_URL",
    default_base_url=None,
    authorise=bearer,
    is_key_required=False,
    refuses_key=_is_refused_key,
)


class OpencodeRuntime(Runtime):
    """`SIDECAR_BASE_URL` and `SIDECAR_API_KEY`; else `LITELLM_BASE_URL` and `LITELLM_API_KEY`.

    A sidecar on loopback may need no key, so a base URL alone is enough; a key alone means
    `http://127.0.0.1:8080`.
    """

    name = "opencode"
    endpoints = (SIDECAR, LITELLM)

    async def list_models(self, upstream: Upstream) -> ModelPage:
        """Return what the sidecar lists, or the gateway's models for conversations."""
        is_gateway = upstream.endpoint is LITELLM
        walked = await walk_anthropic(upstream, headers={} if is_gateway else _SIDECAR_HEADERS)
        items = [i for i in walked.items if _is_listed(i)] if is_gateway else walked.items
        return make_page(self.name, items, self._read, has_more=walked.has_more)

    async def retrieve_model(self, upstream: Upstream, model_id: str) -> ModelInfo:
        """Return one model, also one that the gateway's list hides.

        From LiteLLM always by the list: its own route answers 404 for ids with a slash.
        """
        if upstream.endpoint is not LITELLM:
            return await fetch_anthropic(upstream, model_id, headers=_SIDECAR_HEADERS)
        walked = await walk_anthropic(upstream, headers={})
        models = make_page(self.name, walked.items, self._read)
        for model in models:
            if model.id == model_id:
                return model
        raise unknown_model(self.name, model_id, (model.id for model in models))

    def _read(self, item: Any) -> ModelInfo | None:
        return read_item(item, runtime=self.name)


def _is_listed(item: Any) -> bool:
    """Whether a gateway item belongs in a picker; what is neither an object nor an id is judged later."""
    if isinstance(item, str):
        item = {"id": item}
    if not isinstance(item, dict):
        return True
    mode = item.get("mode")
    is_conversation = mode in _CONVERSATION_MODES if isinstance(mode, str) else True
    model_id = str(item.get("id", ""))
    return is_conversation and "*" not in model_id and model_id not in PLACEHOLDERS
