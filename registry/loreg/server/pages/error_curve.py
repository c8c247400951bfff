"""Turn the errors of a merge by rank into a curve, which a template draws as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.value import Value

_WIDTH, _HEIGHT = 560.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 12.0, 28.0
_MAX_LABELS = 9


class ErrorCurve(Value, frozen=True):
    """A curve in a box of 560 × 200: ``path`` is its ``d``, ``across`` and ``up`` are the labels of its axes.

    ``x`` and ``y`` are where the merge lies; ``label`` says it in words.
    """

    path: str
    x: float
    y: float
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    label: str


def draw_error_curve(errors: Sequence[float], rank: int, epsilon: float) -> ErrorCurve:
    """Return the curve of ε at rank 0, 1, 2, …, and the merge at its ``rank`` with its ``epsilon``."""
    last = max(len(errors) - 1, 1)
    places = [(_across(i, last), _up(error)) for i, error in enumerate(errors)]
    step = max(1, -(-last // _MAX_LABELS))
    return ErrorCurve(
        path="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places),
        x=round(_across(min(rank, last), last), 1),
        y=round(_up(epsilon), 1),
        across=tuple((round(_across(i, last), 1), str(i)) for i in range(0, last + 1, step)),
        up=tuple((round(_up(share), 1), f"{share:g}") for share in (0, 0.5, 1)),
        label=f"Error by rank: {epsilon:.3g} at rank {rank}; the curve ends with {errors[-1]:.3g} at rank {last}",
    )


def _across(rank: int, last: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * rank / last


def _up(error: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(error, 1.0))
