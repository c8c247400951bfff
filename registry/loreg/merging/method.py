"""How a merge method is declared: its name, its source, its parameters, and the function that merges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from loreg.algebra.spectrum import Spectrum
from loreg.errors import UsageError
from loreg.merging.batch import Batch, Batches, Thresholds

#: The value of each parameter, by name.
#: Parameters of a method by name; which types they have, the method says.
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One named choice of a method. Its default's type is its type; numbers have a range, texts have ``choices``."""

    name: str
    default: float | int | str
    about: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """What is possible, in words: ``0 to 1``, or ``mass | count``."""
        if self.choices:
            return " | ".join(self.choices)
        if self.high < math.inf:
            return f"{self.low:g} to {self.high:g}"
        return f"{self.low:g} or more" if self.low > -math.inf else "any number"

    def read(self, value: Any) -> float | int | str:
        """Read a value, or a text that means one. Raises UsageError, naming what is possible."""
        kind = type(self.default)
        try:
            if kind is not str and isinstance(value, bool):
                raise ValueError("a truth value")
            read = kind(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._error(value) from error
        if kind is int and isinstance(value, float) and value != read:
            raise self._error(value)
        if self.choices and read not in self.choices:
            raise self._error(value)
        if not isinstance(read, str) and not self.low <= read <= self.high:
            raise self._error(value)
        return read

    def _error(self, value: object) -> UsageError:
        return UsageError(
            f"{self.name} is {str(value)[:40]!r}, expected {self.range}", hint=f"the default is {self.default}"
        )


class MethodFamily(StrEnum):
    """What methods have in common, one file for each."""

    EXACT = "exact"
    ELEMENTWISE = "elementwise"
    SHARED_BASIS = "shared basis"
    SPECTRAL = "spectral"
    LEAST_SQUARES = "least squares"
    FACTORS = "factors"


@dataclass(frozen=True)
class Method:
    """A way to merge. ``merge`` takes n modules of one shape and returns the spectrum of the n merged deltas.

    ``concept`` says how it works, in the paper's words, and ``use`` when to take it; the documentation prints both.
    ``full_rank`` says that the merged delta has no low rank: it can only be written truncated. ``calibrate`` looks at
    all modules first and returns what ``merge`` then finds in ``batch.thresholds``. ``min_sources`` and
    ``max_sources`` bound the number of sources. ``needs_moments`` says that it merges by cross moments, which
    ``merge`` finds in ``batch.moments``; ``relative_weights`` that weights are importances, of which none is negative;
    ``adds_up`` that more sources make a longer delta, which may overshoot.
    """

    name: str
    family: MethodFamily
    summary: str
    source: str
    concept: str
    use: str
    merge: Callable[[Batch, Values], Spectrum]
    parameters: tuple[Parameter, ...] = ()
    full_rank: bool = False
    calibrate: Callable[[Batches, Values], Thresholds | None] | None = None
    min_sources: int = 1
    max_sources: int | None = None
    needs_moments: bool = False
    relative_weights: bool = False
    adds_up: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the method as it is declared, as JSON."""
        parameters = [
            {"name": p.name, "type": type(p.default).__name__, "default": p.default, "range": p.range, "about": p.about}
            for p in self.parameters
        ]
        return {
            "name": self.name,
            "family": self.family,
            "summary": self.summary,
            "source": self.source,
            "full_rank": self.full_rank,
            "needs_calibration": self.needs_moments,
            "parameters": parameters,
        }

    def values(self, options: Values) -> dict[str, object]:
        """Return the value of each parameter: the one in ``options``, or its default.

        Raises UsageError for a value that is not possible, or a parameter that the method does not have.
        """
        parameters = {parameter.name: parameter for parameter in self.parameters}
        for name in options:
            if name not in parameters:
                names = ", ".join(parameters) or "none"
                raise UsageError(
                    f"the method {self.name} has no parameter {name!r}; it has {names}",
                    hint=f"loreg methods {self.name}",
                )
        return {name: parameter.read(options.get(name, parameter.default)) for name, parameter in parameters.items()}
