"""The chart of the latest turns, as coordinates for an SVG that has no styles of its own. Pure.

Two strips share one time axis: the durations as dots on a logarithmic scale, how many there were as bars. The
axis has an hour, or ten minutes while nothing older is known.
The drawing is stretched to the width of the page, so dots are strokes that keep their size (`M x y h0` with
round ends) and all words stand beside it, in HTML.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sidecar.console.recent import RecentRequest, RecentTurn

WIDTH, DOTS_HEIGHT, BARS_HEIGHT = 600, 160, 40
SCALE = ("1000 s", "100 s", "10 s", "1 s", "0.1 s", "0.01 s")
_DECADES = (-2, 3)
"""The same as powers of ten; what is shorter or longer is drawn at the edge."""
_LONG_MINUTES, _SHORT_MINUTES = 60, 10
_BARS = 60
OUTCOMES = ("failed", "interrupted", "refused", "completed")
"""From the bottom of a bar to its top."""


@dataclass(frozen=True, slots=True)
class Dots:
    """All dots of one kind, as one path."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a bar."""

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
    minutes: int
    bar_seconds: float
    most_per_bar: int
    turns: int
    failed: int
    median_seconds: float | None
    p95_seconds: float | None
    requests: int
    failed_requests: int
    first_byte_median_seconds: float | None
    first_byte_p95_seconds: float | None
    is_cut: bool
    """Whether there were more turns or requests in this time than are kept."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.turns or self.requests)


def draw(
    turns: Collection[RecentTurn], requests: Iterable[RecentRequest], now: float, *, kept: int
) -> Chart:
    """Return the chart of the time before `now`, seconds since the epoch.

    Of turns and of requests at most `kept` are given.
    """
    minutes = _LONG_MINUTES
    if all(turn.at > now - _SHORT_MINUTES * 60 for turn in turns):
        minutes = _SHORT_MINUTES
    span = minutes * 60.0
    shown = [turn for turn in turns if turn.at > now - span]
    asked = [request for request in requests if request.at > now - span]
    waits = [(r.at, r.first_byte_seconds) for r in asked if r.first_byte_seconds is not None]
    durations = [turn.seconds for turn in shown]
    first_bytes = [seconds for _, seconds in waits]
    bars, most = _bars(shown, now, span)
    groups = {"first-byte": waits} | {
        outcome: [(turn.at, turn.seconds) for turn in shown if turn.outcome == outcome]
        for outcome in reversed(OUTCOMES)
    }
    return Chart(
        dots=[Dots(kind, _path(points, now, span)) for kind, points in groups.items() if points],
        bars=bars,
        lines=[DOTS_HEIGHT * step / (len(SCALE) - 1) for step in range(len(SCALE))],
        minutes=minutes,
        bar_seconds=span / _BARS,
        most_per_bar=most,
        turns=len(shown),
        failed=sum(turn.outcome == "failed" for turn in shown),
        median_seconds=_quantile(durations, 0.5),
        p95_seconds=_quantile(durations, 0.95),
        requests=len(asked),
        failed_requests=sum(r.outcome not in {"ok", "refusal"} for r in asked),
        first_byte_median_seconds=_quantile(first_bytes, 0.5),
        first_byte_p95_seconds=_quantile(first_bytes, 0.95),
        is_cut=max(len(shown), len(asked)) >= kept,
    )


def _path(points: Iterable[tuple[float, float]], now: float, span: float) -> str:
    return "".join(f"M{_x(at, now, span):.1f} {_y(seconds):.1f}h0" for at, seconds in points)


def _x(at: float, now: float, span: float) -> float:
    return WIDTH * min(1.0, max(0.0, 1 - (now - at) / span))


def _y(seconds: float) -> float:
    low, high = _DECADES
    decade = min(high, max(low, math.log10(max(seconds, 1e-9))))
    return DOTS_HEIGHT * (high - decade) / (high - low)


def _bars(turns: Iterable[RecentTurn], now: float, span: float) -> tuple[list[Bar], int]:
    """Return the bars, and how many turns the highest one stands for."""
    counts: Counter[tuple[int, str]] = Counter()
    for turn in turns:
        place = int((now - turn.at) * _BARS / span)
        counts[min(_BARS - 1, max(0, place)), turn.outcome] += 1
    heights = [sum(counts[place, outcome] for outcome in OUTCOMES) for place in range(_BARS)]
    most, step = max(heights), WIDTH / _BARS
    bars = []
    for place in range(_BARS):
        top = float(BARS_HEIGHT)
        for outcome in OUTCOMES:
            if count := counts[place, outcome]:
                height = BARS_HEIGHT * count / most
                top -= height
                x = WIDTH - (place + 1) * step + 1
                bars.append(Bar(outcome, round(x, 1), round(top, 1), step - 2, round(height, 1)))
    return bars, most


def _quantile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank quantile, None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
