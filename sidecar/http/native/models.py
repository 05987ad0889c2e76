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
    ) -> tuple[list[str], bool]:
        """Edit the models in `document` in place, in whichever of opencode's forms they came.

        Where it names none, the model that opencode keeps with `session` is registered: opencode would
        refuse it after a restart of the sidecar. Return the gateway's ids of all, the request's own model
        last, and whether `document` was edited. Raises InvalidRequestError, with near matches, for a model
        that is not offered.
        """
        parts = document.get("parts")
        holders = [
            part["model"]
            for part in (parts if isinstance(parts, list) else ())
            if isinstance(part, dict) and isinstance(part.get("model"), dict)  # a sub-agent's
        ]
        qualified = [await self._qualify_pair(holder, "modelID") for holder in holders]
        qualified.append(await self._qualify_own(document, session))
        refs = [ref for ref, _ in qualified if ref is not None]
        ids = [each.model_id for each in refs if each.provider == GATEWAY_PROVIDER]
        return ids, any(is_edited for _, is_edited in qualified)

    async def _qualify_own(
        self, document: MutableMapping[str, Any], session: Mapping[str, Any] | None
    ) -> tuple[ModelRef | None, bool]:
        model = document.get("model")
        if isinstance(model, str) and model:
            ref = await self._resolve(model)
            document["model"] = str(ModelRef(ref.provider, child_id(ref.model_id)))
            return ref, document["model"] != model
        holder = model if isinstance(model, dict) else document
        # A new session's model has `id`, everything else `modelID`; elsewhere `id` is something else.
        key = "id" if isinstance(model, dict) and "modelID" not in model else "modelID"
        found, is_edited = await self._qualify_pair(holder, key)
        if found is not None:
            return found, is_edited
        kept = session.get("model") if session is not None else None
        if isinstance(kept, dict) and isinstance(kept.get("id"), str):
            return await self._named(kept.get("providerID"), kept["id"]), False
        return None, False

    async def _qualify_pair(
        self, holder: MutableMapping[str, Any], key: str
    ) -> tuple[ModelRef | None, bool]:
        provider, model_id = holder.get("providerID"), holder.get(key)
        if not (isinstance(model_id, str) and model_id):
            return None, False
        ref = await self._named(provider, model_id)
        holder["providerID"], holder[key] = ref.provider, child_id(ref.model_id)
        return ref, (holder["providerID"], holder[key]) != (provider, model_id)

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
