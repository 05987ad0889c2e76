"""A gateway whose lists of models lie. Whatever it says, those that work go on working."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from sidecar.demo_gateway import DemoGateway
from tests.odd_values import ODD_VALUES

Lie = Callable[[list[dict[str, Any]]], str]
"""Makes the text of a list of the honest one's items."""

_RESERVED = ("__proto__", "constructor", "toString", "", " ", "x" * 2000, "*", "a/*", "null")
_MANY = 300


def _list(items: list[Any]) -> str:
    return json.dumps({"object": "list", "data": items})


def _odd_fields(items: list[dict[str, Any]]) -> str:
    """Return the list with one more item per odd value, as it may have been written."""
    text = ",".join(
        f'{{"id":"odd-{number}","object":"model","mode":"chat","max_input_tokens":{value},"created":{value}}}'
        for number, value in enumerate(ODD_VALUES)
    )
    return _list(items)[:-2] + f",{text}]}}"


LIES: Mapping[str, Lie] = {
    "odd items": lambda items: _list([*items, None, 5, "x", [], {}, {"id": None}, {"id": []}]),
    "odd fields": _odd_fields,
    "odd ids": lambda items: _list([*items, *({**items[0], "id": name} for name in _RESERVED)]),
    "the same again": lambda items: _list(items * 50),
    "very many": lambda items: _list([*items, *({"id": f"m-{n}"} for n in range(_MANY))]),
    "null": lambda _items: "null",
    "no list": lambda _items: json.dumps({"data": {"id": "x"}}),
    "a page": lambda _items: "<html>The service is being updated.</html>",
    "nothing": lambda _items: "",
    "half of it": lambda items: _list(items)[:-10],
    "too deep": lambda _items: "[" * 100_000,
}


class LyingGateway(DemoGateway):
    """A demo gateway. While `lie` names one, each of its lists is made by it; completions stay honest."""

    lie: str | None = None

    async def _list_models(self, request: web.Request) -> web.Response:
        return _as_told(await super()._list_models(request), self.lie)

    async def _list_groups(self, request: web.Request) -> web.Response:
        return _as_told(await super()._list_groups(request), self.lie)

    async def _list_deployments(self, request: web.Request) -> web.Response:
        return _as_told(await super()._list_deployments(request), self.lie)


def _as_told(honest: web.Response, lie: str | None) -> web.Response:
    if lie is None:
        return honest
    assert honest.text is not None
    return web.Response(
        text=LIES[lie](json.loads(honest.text)["data"]), content_type="application/json"
    )
