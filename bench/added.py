"""What the way through us adds to a small request."""

from __future__ import annotations

from bench.report import Row
from bench.stats import Samples, format_seconds, ratio

MOST_ADDED_SECONDS = 0.0015


def added_row(what: str, ours: Samples, theirs: Samples, *, is_target: bool) -> Row:
    """Compare the medians of the same request with us and without."""
    added = ours.p50 - theirs.p50
    sign = "+" if added >= 0 else "-"
    measured = f"{ours}: {sign}{format_seconds(abs(added))}, {ratio(ours.p50, theirs.p50):.2f}x"
    if not is_target:
        return Row(what, measured, f"straight: {theirs}")
    bound = f"p50 at most +{format_seconds(MOST_ADDED_SECONDS)}"
    return Row(what, measured, f"straight: {theirs}", bound, added <= MOST_ADDED_SECONDS)
