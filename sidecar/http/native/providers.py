"""What opencode's own clients read of providers and configuration, without a key in it.

opencode's answers hold resolved keys and only the models that are in use. Here every model that the
gateway lists is offered, because any of them can be named in a prompt. Wire format: `/config`,
`/config/providers` and `/provider` in `GET /doc` of opencode 1.18.33.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.gateway.catalogue import CatalogueSnapshot
from sidecar.managed.agents.model_registry import model_entry
from sidecar.naming import GATEWAY_PROVIDER, ModelRef, child_id
from sidecar.opencode.config_file import AGENT
from sidecar.opencode.provider import CHAT_PACKAGE, ModelEntry, model_config

_KINDS = ("text", "audio", "image", "video", "pdf")
_NAME = "LiteLLM"


class ProviderAnswers:
    """Makes the answers from the catalogue as it is at the moment."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], CatalogueSnapshot | None],
        default_model: Callable[[], str | None],
    ) -> None:
        self._snapshot = snapshot
        self._default_model = default_model

    def configuration(self) -> dict[str, Any]:
        """Return `GET /config`: the part of the child's configuration that holds no key and no path."""
        document: dict[str, Any] = {
            "$schema": "https://opencode.ai/config.json",
            "share": "disabled",
            "autoupdate": False,
            "snapshot": False,
            "enabled_providers": [GATEWAY_PROVIDER],
            "default_agent": AGENT,
            "provider": {
                GATEWAY_PROVIDER: {
                    "name": _NAME,
                    "models": {
                        child_id(key): model_config(entry) for key, entry in self._listed().items()
                    },
                }
            },
        }
        if (default := self._default_model()) is not None:
            document["model"] = document["small_model"] = str(
                ModelRef(GATEWAY_PROVIDER, child_id(default))
            )
        return document

    def usable(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return `GET /config/providers`. `known` is the child's own answer: it knows models' variants."""
        return {"providers": [self._provider(known)], "default": self._default()}

    def all(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `GET /provider`: the same providers, in fields of other names."""
        return {
            "all": [self._provider(known)],
            "default": self._default(),
            "connected": [GATEWAY_PROVIDER],
        }

    def _provider(self, known: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": GATEWAY_PROVIDER,
            "name": _NAME,
            "source": "config",
            "env": [],
            "options": {},
            "models": {child_id(key): _model(entry) for key, entry in self._listed().items()}
            | _models_of(known),
        }

    def _listed(self) -> dict[str, ModelEntry]:
        snapshot = self._snapshot()
        if snapshot is None:
            return {}
        return {key: model_entry(snapshot.entries[key]) for key in snapshot.listed}

    def _default(self) -> dict[str, str]:
        default = self._default_model()
        return {GATEWAY_PROVIDER: child_id(default)} if default is not None else {}


def _models_of(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gateway's models in an answer of the child; what could hold a key is emptied."""
    for provider in known.get("providers", ()):
        if provider.get("id") == GATEWAY_PROVIDER:
            models: Mapping[str, Any] = provider.get("models", {})
            return {
                model_id: {**model, "options": {}, "headers": {}}
                for model_id, model in models.items()
            }
    return {}


def _model(entry: ModelEntry) -> dict[str, Any]:
    config = model_config(entry)
    inputs, outputs = config["modalities"]["input"], config["modalities"]["output"]
    return {
        "id": child_id(entry.id),
        "providerID": GATEWAY_PROVIDER,
        "api": {
            "id": child_id(entry.id),
            "url": "",
            "npm": config.get("provider", {}).get("npm", CHAT_PACKAGE),
        },
        "name": config["name"],
        "family": "",
        "capabilities": {
            "temperature": config["temperature"],
            "reasoning": config["reasoning"],
            "attachment": config["attachment"],
            "toolcall": config["tool_call"],
            "input": {kind: kind in inputs for kind in _KINDS},
            "output": {kind: kind in outputs for kind in _KINDS},
            "interleaved": False,
        },
        "cost": {
            "input": config["cost"]["input"],
            "output": config["cost"]["output"],
            "cache": {"read": config["cost"]["cache_read"], "write": config["cost"]["cache_write"]},
        },
        "limit": config["limit"],
        "status": "active",
        "options": {},
        "headers": {},
        "release_date": "",
    }
