"""Repairs events of the Responses API that the AI SDK inside opencode cannot read."""

from __future__ import annotations

from typing import Any

from sidecar.gateway.streams.whole import response_events
from sidecar.gateway.usage import repaired_counts
from sidecar.wire.scalars import read_number

_NUMBERS = ("sequence_number", "output_index", "content_index", "summary_index")
_DETAILS = ("input_tokens_details", "output_tokens_details")
_UNFINISHED = frozenset({"queued", "in_progress"})


class ResponsesRepair:
    """Makes the usual events of a whole response, and numbers of texts; all else passes."""

    def __init__(self) -> None:
        self._has_items = False

    def repair(self, value: dict[str, Any], _event: str) -> list[dict[str, Any]] | None:
        """Return what to send in place of the event, None to send it as it came. Changes `value`."""
        is_changed = _repair_numbers(value, _NUMBERS)
        response = value if value.get("object") == "response" else value.get("response")
        if isinstance(response, dict):
            is_changed |= _repair_response(response)
        if value.get("object") != "response":
            self._has_items |= value.get("type") == "response.output_item.added"
            return [value] if is_changed else None
        if str(value.get("status")) in _UNFINISHED:
            return []  # the last one has all
        events = [
            {**event, "sequence_number": number}
            for number, event in enumerate(response_events(value))
        ]
        return events[-1:] if self._has_items else events


def _repair_response(response: dict[str, Any]) -> bool:
    is_changed = _repair_numbers(response, ("created_at",))
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return is_changed
    for holder in (usage, *(usage.get(name) for name in _DETAILS)):
        if isinstance(holder, dict) and (counts := repaired_counts(holder)):
            # null is no count to the AI SDK
            holder.update({name: count or 0 for name, count in counts.items()})
            is_changed = True
    return is_changed


def _repair_numbers(holder: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Write as numbers those that are texts; return whether there were any."""
    texts = {name: read_number(holder[name]) for name in names if isinstance(holder.get(name), str)}
    holder.update({name: number or 0 for name, number in texts.items()})
    return bool(texts)
