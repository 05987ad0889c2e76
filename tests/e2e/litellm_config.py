"""LiteLLM proxy configurations whose deployments all answer from one upstream of ours.

The prefix of a deployment's model chooses LiteLLM's way to the upstream: `openai/x` calls
`<upstream>/v1/chat/completions`, `anthropic/x` calls `<upstream>/v1/messages`. What a client of the
proxy calls may differ: `/v1/messages` of an `openai/x` deployment is translated, and LiteLLM then calls
`<upstream>/v1/responses` unless `messages_over_chat` is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Deployment:
    """One entry of `model_list`: the public `name` (slashes allowed) and where it leads.

    `target` is LiteLLM's own `provider/model`; `info` becomes `model_info` (`mode`, limits, costs).
    """

    name: str
    target: str
    info: Mapping[str, Any] = field(default_factory=dict)


def openai(name: str, model: str | None = None, **info: Any) -> Deployment:
    """Return a deployment reached by chat completions."""
    return Deployment(name, f"openai/{model or name}", info)


def anthropic(name: str, model: str | None = None, **info: Any) -> Deployment:
    """Return a deployment reached by the Messages API."""
    return Deployment(name, f"anthropic/{model or name}", info)


def proxy_config(
    deployments: Iterable[Deployment],
    *,
    upstream: str,
    upstream_key: str = "unused",
    messages_over_chat: bool = False,
) -> dict[str, Any]:
    """Return the proxy's configuration. `upstream` is a base URL without `/v1`."""
    return {
        "model_list": [_entry(each, upstream, upstream_key) for each in deployments],
        "general_settings": {"disable_spend_logs": True},
        "litellm_settings": {
            "num_retries": 0,  # a scripted failure must arrive as it was scripted
            "request_timeout": 120,
            "use_chat_completions_url_for_anthropic_messages": messages_over_chat,
        },
        "router_settings": {"disable_cooldowns": True},
    }


def _entry(deployment: Deployment, upstream: str, upstream_key: str) -> dict[str, Any]:
    # LiteLLM appends /v1/messages itself, but takes the OpenAI base with its /v1.
    base = upstream if deployment.target.startswith("anthropic/") else f"{upstream}/v1"
    return {
        "model_name": deployment.name,
        "litellm_params": {
            "model": deployment.target,
            "api_base": base,
            "api_key": upstream_key,
        },
        "model_info": {"mode": "chat", **deployment.info},
    }
