"""Repairs events of the Responses API that the AI SDK inside opencode cannot read."""

from __future__ import annotations

from typing import Any

from sidecar.gateway.streams.whole import response_events


class ResponsesRepair:
    """Makes the usual events of a whole response; all others pass."""

    def repair(self, value: dict[str, Any], _event: str) -> list[dict[str, Any]] | None:
        """Return what to send in place of the event, None to send it as it came."""
        if value.get("object") != "response":
            return None
        return [
            {**event, "sequence_number": number}
            for number, event in enumerate(response_events(value))
        ]
