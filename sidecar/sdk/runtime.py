"""What a runtime has to say about itself: the one thing an adapter implements."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from urllib.parse import quote

from sidecar.sdk.endpoints import Endpoint
from sidecar.sdk.errors import NotFoundError
from sidecar.sdk.models import ModelInfo, ModelPage
from sidecar.sdk.transport import Upstream

_BARE_IN_PATHS = "!$&'()*+,;=:@"
"""What the official SDKs leave unquoted in a path segment; a slash becomes %2F."""


class Runtime(ABC):
    """An adapter: how one runtime lists its models. Instances hold no connection and no key.

    A package adds a runtime by the entry point group `opencode_sidecar.runtimes`: the entry's name is
    the runtime's name, its object a subclass (made without arguments) or an instance.
    """

    name: str
    """The name callers use."""
    endpoints: tuple[Endpoint, ...]
    """Where it can be reached, best first; the first one that is configured is used."""

    @abstractmethod
    async def list_models(self, upstream: Upstream) -> ModelPage:
        """Return all models, every page walked. Raises ModelsError."""

    async def retrieve_model(self, upstream: Upstream, model_id: str) -> ModelInfo:
        """Return one model. The default looks it up in the list. Raises ModelsError."""
        page = await self.list_models(upstream)
        for model in page:
            if model.id == model_id:
                return model
        raise unknown_model(self.name, model_id, (model.id for model in page))


def unknown_model(runtime: str, model_id: str, known_ids: Iterable[str] = ()) -> NotFoundError:
    """Make the error for an id that is not listed, with up to three near matches."""
    near = difflib.get_close_matches(model_id, list(known_ids), 3, 0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return NotFoundError(f"no model {model_id[:200]!r}{hint}", runtime=runtime)


def path_segment(runtime: str, model_id: str) -> str:
    """Percent-encode an id for a path. Raises NotFoundError for what can never be an id."""
    if model_id in {"", ".", ".."}:
        raise unknown_model(runtime, model_id)
    return quote(model_id, safe=_BARE_IN_PATHS)
