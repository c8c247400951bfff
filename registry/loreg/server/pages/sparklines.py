"""Turn numbers into the curve of a sparkline, which a template draws as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.value import Value

_WIDTH, _HEIGHT, _MARGIN = 120.0, 28.0, 4.0
_HUGE = 1e150  # beyond which differences overflow


class Sparkline(Value, frozen=True):
    """A curve in a box of 120 × 28: ``path`` is its ``d``, ``x`` and ``y`` its end; ``label`` says it in words."""

    path: str
    x: float
    y: float
    label: str


def draw_sparkline(points: Sequence[tuple[int, float]], name: str) -> Sparkline | None:
    """Return the curve of a metric over the numbers of versions; None for fewer than two points."""
    points = sorted((number, value) for number, value in points if abs(value) < _HUGE)
    if len(points) < 2:
        return None
    numbers, values = [number for number, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    span = high - low
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    places = [
        (
            _MARGIN + width * (number - numbers[0]) / (numbers[-1] - numbers[0]),
            _MARGIN + height * ((high - value) / span if span else 0.5),
        )
        for number, value in points
    ]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    label = f"{name} from {values[0]:.4g} in v{numbers[0]} to {values[-1]:.4g} in v{numbers[-1]}"
    return Sparkline(path, round(places[-1][0], 1), round(places[-1][1], 1), label)
