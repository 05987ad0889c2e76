"""Metadata: string pairs that clients keep with a resource, changed by patches."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.errors import InvalidRequestError
from sidecar.wire.fields import FIELD_CODES, MAX_METADATA_PAIRS


def merge_metadata(current: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    """Merge per key; null deletes. Raises InvalidRequestError for more pairs than an object may have."""
    merged = {key: value for key, value in {**current, **patch}.items() if value is not None}
    if len(merged) > MAX_METADATA_PAIRS:
        raise InvalidRequestError(
            f"metadata: at most {MAX_METADATA_PAIRS} pairs",
            field="metadata",
            error_code=FIELD_CODES["metadata"],
        )
    return merged
