"""The model's id in a request of the child: opencode holds some ids under a stand-in (`naming.child_id`)."""

from __future__ import annotations

import json

from sidecar.naming import STAND_IN, gateway_id
from sidecar.wire.json_text import read_leniently

_HEAD_BYTES = 4096
"""Model clients name the model first; a prompt of megabytes is not searched for it."""
_MARK = f'"{STAND_IN}'.encode()


def with_gateway_id(body: bytes | bytearray) -> bytes | bytearray:
    """Return the request's body with the gateway's own id of its model; the same bytes where it has that."""
    if _MARK not in body[:_HEAD_BYTES]:
        return body
    try:
        document = read_leniently(body)
    except ValueError:
        return body
    named = document.get("model") if isinstance(document, dict) else None
    if not isinstance(named, str) or gateway_id(named) == named:
        return body
    return json.dumps(document | {"model": gateway_id(named)}).encode()
