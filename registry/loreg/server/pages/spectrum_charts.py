"""Lay out singular values as charts, which a template draws as SVG: those of all modules as lines, of one as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loreg.entities import ModuleSpectrum
from loreg.entities.display.layers import lay_out_by_layer
from loreg.entities.display.text import format_share, printable
from loreg.value import Value

KINDS = 6  # colours of lines
_MAX_LINES = 240  # modules that are drawn; of more, every n-th
_WIDTH, _HEIGHT = 560.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 12.0, 28.0
_MAX_LABELS = 9
_MAX_NAME = 30  # characters
_MAX_DECADES = 6  # below the largest value: what is smaller lies on the floor


class Line(Value, frozen=True):
    """The singular values of one module: ``path`` is the line's ``d``, ``kind`` the number of its colour."""

    path: str
    kind: int
    title: str


class SpectraChart(Value, frozen=True):
    """Lines in a box of 560 × 220; ``across`` and ``up`` are labels of the axes, ``kinds`` names the colours.

    ``label`` says it in words.
    """

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    kinds: tuple[tuple[int, str], ...]
    label: str


class Bar(Value, frozen=True):
    """One singular value, where it lies and what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    title: str


class BarChart(Value, frozen=True):
    """Bars in a box of 560 × 220; ``across`` and ``up`` are labels of the axes, ``label`` says it in words."""

    bars: tuple[Bar, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    label: str


def draw_spectra(modules: Sequence[ModuleSpectrum]) -> SpectraChart | None:
    """Return the singular values of all modules over their place, by powers of ten; None if all are zero."""
    shown = [spectrum for spectrum in modules if any(spectrum.sigmas)]
    if not shown:
        return None
    shown = shown[:: -(-len(shown) // _MAX_LINES)]
    values = [sigma for spectrum in shown for sigma in spectrum.sigmas if sigma > 0]
    top = math.ceil(math.log10(max(values)))
    floor = min(max(math.floor(math.log10(min(values))), top - _MAX_DECADES), top - 1)
    last = max(len(spectrum.sigmas) for spectrum in shown)
    grid = lay_out_by_layer([spectrum.module for spectrum in shown])
    number = f"{len(modules)}" if len(shown) == len(modules) else f"{len(shown)} of {len(modules)}"
    return SpectraChart(
        lines=tuple(
            Line(_line(spectrum, last, floor, top), row % KINDS, _describe(spectrum))
            for spectrum, (row, _) in zip(shown, grid.places, strict=True)
        ),
        across=_label_places(last),
        up=tuple((_up((power - floor) / (top - floor)), f"1e{power}") for power in range(floor, top + 1)),
        kinds=tuple((row % KINDS, printable(name, _MAX_NAME)) for row, name in enumerate(grid.rows[: 2 * KINDS])),
        label=f"Singular values of {number} modules by place, the largest {max(values):.3g}",
    )


def draw_spectrum(spectrum: ModuleSpectrum) -> BarChart:
    """Return the singular values of one module as bars, and what the first of them hold of its energy."""
    sigmas = spectrum.sigmas
    largest = max(sigmas, default=0.0) or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(sigmas), 1)
    held, bars = 0.0, []
    for place, sigma in enumerate(sigmas):
        held += sigma**2
        share = min(held / spectrum.norm**2, 1.0) if spectrum.norm else 1.0
        title = f"σ{place + 1} = {sigma:.4g}; the first {place + 1} hold {format_share(share)}"
        y = _up(sigma / largest)
        bars.append(
            Bar(round(_LEFT + place * step, 1), y, round(0.86 * step, 1), round(_HEIGHT - _BOTTOM - y, 1), title)
        )
    labelled = range(0, len(sigmas), max(1, -(-len(sigmas) // _MAX_LABELS)))
    return BarChart(
        bars=tuple(bars),
        across=tuple((round(_LEFT + (place + 0.43) * step, 1), str(place + 1)) for place in labelled),
        up=tuple((_up(share), f"{share * largest:.2g}") for share in (0.0, 0.5, 1.0)),
        label=f"{len(sigmas)} singular values, from {max(sigmas, default=0.0):.3g} to {min(sigmas, default=0.0):.3g}",
    )


def _line(spectrum: ModuleSpectrum, last: int, floor: int, top: int) -> str:
    powers = [math.log10(sigma) if sigma > 0 else floor for sigma in spectrum.sigmas]
    points = [
        (_across(place, last), _up(max(power - floor, 0.0) / (top - floor))) for place, power in enumerate(powers, 1)
    ]
    if len(points) == 1:  # a line of no length would not be seen
        points.append((points[0][0] + 8, points[0][1]))
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _describe(spectrum: ModuleSpectrum) -> str:
    return f"{printable(spectrum.module)}: σ1 {spectrum.sigmas[0]:.3g}, stable rank {spectrum.stable_rank:.3g}"


def _label_places(last: int) -> tuple[tuple[float, str], ...]:
    return tuple((_across(i, last), str(i)) for i in range(1, last + 1, max(1, -(-last // _MAX_LABELS))))


def _across(place: int, last: int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * (place - 1) / max(last - 1, 1), 1)


def _up(share: float) -> float:
    return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(share, 1.0)), 1)
