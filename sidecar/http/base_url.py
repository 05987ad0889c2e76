"""Requests that were meant for another address, answered with a sentence that says which.

The base URL with `/v1` or a slash at its end is the commonest mistake. Others are to take the sidecar for a
gateway, and to look for a page at its root.
"""

from __future__ import annotations

from aiohttp import web

from sidecar.errors import NotFoundError

_OF_THE_GATEWAY = (
    *("messages", "complete", "chat/completions", "completions", "responses", "embeddings"),
    *("images", "audio", "moderations", "rerank"),
)
"""First parts of paths below `/v1` by which models are called, in Anthropic's and OpenAI's APIs."""


def routes() -> list[web.RouteDef]:
    """Return the routes of paths that are wrong in a way we can name."""
    return [
        # LAP keeps an address as it was typed.
        web.route("*", "/v1/v1/{path:.*}", _refuse_doubled),
        web.route("*", "//{path:.*}", _refuse_slash),
        web.route("*", "/", _refuse_root),
        *(
            web.route("*", f"/v1/{part}{{rest:(/.*)?}}", _refuse_model_call)
            for part in _OF_THE_GATEWAY
        ),
    ]


async def _refuse_doubled(request: web.Request) -> web.StreamResponse:
    raise NotFoundError(
        f"no such route: {request.method} {request.path[:200]}; the base URL must not end in /v1, "
        "clients add that themselves: register this runtime without it"
    )


async def _refuse_slash(request: web.Request) -> web.StreamResponse:
    raise NotFoundError(
        f"no such route: {request.method} {request.path[:200]}; the base URL must not end in a slash, this "
        "client adds one itself: register this runtime without it"
    )


async def _refuse_root(request: web.Request) -> web.StreamResponse:
    raise NotFoundError(
        f"no such route: {request.method} /; this server has an API (/openapi.json) and, for people, the "
        "console at /console; opencode's web interface is not served (docs/divergences.md says why)"
    )


async def _refuse_model_call(request: web.Request) -> web.StreamResponse:
    raise NotFoundError(
        f"no such route: {request.method} {request.path[:200]}; this server runs agents and calls no model "
        "for its clients: send this to the LiteLLM gateway, whose models GET /v1/models lists. One base URL "
        "for both is the recipe 'LiteLLM in front' in docs/deploy.md"
    )
