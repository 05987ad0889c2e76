"""Models in opencode's own requests: looked up as everywhere, and known to the child when they are used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from sidecar.errors import InvalidRequestError
from sidecar.naming import GATEWAY_PROVIDER, ModelRef, child_id, gateway_id

Resolve = Callable[[str], Awaitable[ModelRef]]
"""Resolves what a client typed and registers it with the child. Raises InvalidRequestError."""


class NamedModels:
    """Finds the model that a request names, or that its session will use without naming one."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def qualify(
        self, document: MutableMapping[str, Any], session: Mapping[str, Any] | None
    ) -> tuple[str | None, bool]:
        """Edit the model in `document` in place, in whichever of opencode's forms it came.

        Where it names none, the model that opencode keeps with `session` is registered: opencode would
        refuse it after a restart of the sidecar. Return the gateway's model id, None for no model, and
        whether `document` was edited. Raises InvalidRequestError, with near matches, for a model that is
        not offered.
        """
        model = document.get("model")
        if isinstance(model, str) and model:
            ref = await self._resolve(model)
            document["model"] = str(ModelRef(ref.provider, child_id(ref.model_id)))
            return _gateway_id(ref), document["model"] != model
        holder = model if isinstance(model, dict) else document
        # A new session's model has `id`, everything else `modelID`; elsewhere `id` is something else.
        key = "id" if isinstance(model, dict) and "modelID" not in model else "modelID"
        provider, model_id = holder.get("providerID"), holder.get(key)
        if isinstance(model_id, str) and model_id:
            ref = await self._named(provider, model_id)
            holder["providerID"], holder[key] = ref.provider, child_id(ref.model_id)
            return _gateway_id(ref), (holder["providerID"], holder[key]) != (provider, model_id)
        kept = session.get("model") if session is not None else None
        if isinstance(kept, dict) and isinstance(kept.get("id"), str):
            return _gateway_id(await self._named(kept.get("providerID"), kept["id"])), False
        return None, False

    async def _named(self, provider: Any, model_id: str) -> ModelRef:
        """Look up provider and id together, then the id alone: clients guess the provider."""
        if not isinstance(provider, str) or provider in {"", GATEWAY_PROVIDER}:
            return await self._resolve(gateway_id(model_id))
        try:
            return await self._resolve(f"{provider}/{model_id}")
        except InvalidRequestError as error:
            try:
                return await self._resolve(model_id)
            except InvalidRequestError:
                raise error from None


def _gateway_id(ref: ModelRef) -> str | None:
    return ref.model_id if ref.provider == GATEWAY_PROVIDER else None
