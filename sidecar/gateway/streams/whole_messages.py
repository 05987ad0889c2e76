"""Whole messages of the Messages API inside an event stream: one, or several that each hold all so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.gateway.streams.facts import is_reason
from sidecar.gateway.streams.whole_texts import TextSoFar

_TEXT_OF = {"text": "text", "thinking": "thinking"}


class WholeMessages:
    """Makes the usual events of what each message adds to the one before."""

    def __init__(self) -> None:
        self._texts: dict[int, TextSoFar] = {}
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def events(self, message: dict[str, Any], *, has_blocks: bool) -> Iterator[dict[str, Any]]:
        """Yield what is new. `has_blocks`: they came as events already, and the message repeats them."""
        is_over = is_reason(message.get("stop_reason"))
        begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
        yield {"type": "message_start", "message": begun}
        blocks = [] if has_blocks else message["content"]
        for index, block in enumerate(blocks):
            is_complete = is_over or index < len(blocks) - 1
            if isinstance(block, dict) and index not in self._ended:
                yield from self._block(index, block, is_complete=is_complete)
        if is_over:
            delta = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
            yield {"type": "message_delta", "delta": delta, "usage": message.get("usage")}
            yield {"type": "message_stop"}

    def _block(
        self, index: int, block: dict[str, Any], *, is_complete: bool
    ) -> Iterator[dict[str, Any]]:
        kind = block.get("type")
        field = _TEXT_OF.get(kind) if isinstance(kind, str) else None
        if field is None and not is_complete:
            return  # the input of a call may still grow
        if index not in self._begun:
            self._begun.add(index)
            start = block if field is None else {"type": kind, field: ""}
            yield {"type": "content_block_start", "index": index, "content_block": start}
        if field is not None:
            text = self._texts.setdefault(index, TextSoFar()).take(str(block.get(field) or ""))
            deltas = [{"type": f"{field}_delta", field: text}] if text else []
            if is_complete and block.get("signature"):
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            for delta in deltas:
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        if is_complete:
            self._ended.add(index)
            yield {"type": "content_block_stop", "index": index}
