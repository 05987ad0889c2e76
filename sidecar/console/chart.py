"""The chart of the last hour's turns, as coordinates for an SVG that has no styles of its own. Pure.

Two strips share one time axis: the durations as dots on a logarithmic scale, the turns per minute as bars.
The drawing is stretched to the width of the page, so dots are strokes that keep their size (`M x y h0` with
round ends) and all words stand beside it, in HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.console.recent import RecentRequest, RecentTurn

WIDTH, DOTS_HEIGHT, BARS_HEIGHT = 600, 160, 40
MINUTES = 60
_SPAN_SECONDS = MINUTES * 60
_DECADES = (-1, 3)
"""From 0.1 s to 1000 s; what is shorter or longer is drawn at the edge."""
OUTCOMES = ("failed", "interrupted", "refused", "completed")
"""From the bottom of a bar to its top."""


@dataclass(frozen=True, slots=True)
class Dots:
    """All dots of one kind, as one path."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of one minute's bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws, and the same in numbers."""

    dots: Sequence[Dots]
    bars: Sequence[Bar]
    lines: Sequence[float]
    """Heights of the grid, one for each decade, from the top."""
    most_per_minute: int
    turns: int
    failed: int
    median_seconds: float | None
    p95_seconds: float | None
    requests: int
    failed_requests: int
    first_byte_median_seconds: float | None
    first_byte_p95_seconds: float | None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.turns or self.requests)


def draw(turns: Iterable[RecentTurn], requests: Iterable[RecentRequest], now: float) -> Chart:
    """Return the chart of the hour before `now`, seconds since the epoch."""
    shown = [turn for turn in turns if turn.at > now - _SPAN_SECONDS]
    asked = [request for request in requests if request.at > now - _SPAN_SECONDS]
    waits = [(r.at, r.first_byte_seconds) for r in asked if r.first_byte_seconds is not None]
    durations = [turn.seconds for turn in shown]
    first_bytes = [seconds for _, seconds in waits]
    bars, most = _bars(shown, now)
    groups = {"first-byte": waits} | {
        outcome: [(turn.at, turn.seconds) for turn in shown if turn.outcome == outcome]
        for outcome in reversed(OUTCOMES)
    }
    low, high = _DECADES
    return Chart(
        dots=[Dots(kind, _path(points, now)) for kind, points in groups.items() if points],
        bars=bars,
        lines=[DOTS_HEIGHT * step / (high - low) for step in range(high - low + 1)],
        most_per_minute=most,
        turns=len(shown),
        failed=sum(turn.outcome == "failed" for turn in shown),
        median_seconds=_quantile(durations, 0.5),
        p95_seconds=_quantile(durations, 0.95),
        requests=len(asked),
        failed_requests=sum(r.outcome not in {"ok", "refusal"} for r in asked),
        first_byte_median_seconds=_quantile(first_bytes, 0.5),
        first_byte_p95_seconds=_quantile(first_bytes, 0.95),
    )


def _path(points: Iterable[tuple[float, float]], now: float) -> str:
    return "".join(f"M{_x(at, now):.1f} {_y(seconds):.1f}h0" for at, seconds in points)


def _x(at: float, now: float) -> float:
    return WIDTH * min(1.0, max(0.0, 1 - (now - at) / _SPAN_SECONDS))


def _y(seconds: float) -> float:
    low, high = _DECADES
    decade = min(high, max(low, math.log10(max(seconds, 1e-9))))
    return DOTS_HEIGHT * (high - decade) / (high - low)


def _bars(turns: Iterable[RecentTurn], now: float) -> tuple[list[Bar], int]:
    """Return the bars, and how many turns the highest one stands for."""
    counts: Counter[tuple[int, str]] = Counter()
    for turn in turns:
        counts[min(MINUTES - 1, int((now - turn.at) / 60)), turn.outcome] += 1
    most = max((_height(counts, minute) for minute in range(MINUTES)), default=0)
    bars = []
    step = WIDTH / MINUTES
    for minute in range(MINUTES):
        top = float(BARS_HEIGHT)
        for outcome in OUTCOMES:
            if count := counts[minute, outcome]:
                height = BARS_HEIGHT * count / most
                top -= height
                x = WIDTH - (minute + 1) * step + 1
                bars.append(Bar(outcome, round(x, 1), round(top, 1), step - 2, round(height, 1)))
    return bars, most


def _height(counts: Counter[tuple[int, str]], minute: int) -> int:
    return sum(counts[minute, outcome] for outcome in OUTCOMES)


def _quantile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank quantile, None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
