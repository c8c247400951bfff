"""What the deltas of one adapter weigh and how they spread over their directions."""

from __future__ import annotations

from collections.abc import Mapping

from loreg.value import Value


class ModuleSpectrum(Value, frozen=True):
    """The singular values σ of one module's delta ``scale · B @ A``, of ``shape`` (out, in), the largest first.

    ``rank`` is that of its factors, ``norm`` the Frobenius norm ``√Σσᵢ²`` and ``stable_rank`` is ``Σσᵢ²/σ₁²``, 0 for a
    delta that is zero. ``ranks`` are the smallest that keep 90, 99 and 99.9 % of the energy ``Σσᵢ²``. Of the experts of
    one module the squares of what is at one place add up. Only the 64 largest are known of more: then ``complete`` is
    False, and a rank beyond them None.
    """

    module: str
    shape: tuple[int, int]
    rank: int
    norm: float
    stable_rank: float
    sigmas: tuple[float, ...]
    ranks: Mapping[str, int | None]
    complete: bool


class AdapterSpectra(Value, frozen=True):
    """The spectra of the version ``ref``, whose files have that ``digest``, by name of the module.

    ``norm`` is that of all deltas together; ``retained`` has the share of their energy that rank 0, 1, 2, … would keep,
    if all modules had it.
    """

    ref: str
    digest: str
    norm: float
    retained: tuple[float, ...]
    modules: tuple[ModuleSpectrum, ...]
