"""What a merge method is: a name, where it comes from, the parameters it declares, and the function that merges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loreg.algebra.spectrum import Spectrum
from loreg.errors import UsageError
from loreg.merging.batch import Batch, Batches

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
        """What is possible, for people: ``0 to 1``, or ``mass | count``."""
        if self.choices:
            return " | ".join(self.choices)
        if self.high < math.inf:
            return f"{self.low:g} to {self.high:g}"
        return f"{self.low:g} or more" if self.low > -math.inf else "any number"

    def read(self, value: Any) -> float | int | str:
        """``value``, or a text that means one. Raises UsageError, naming what is possible."""
        kind = type(self.default)
        try:
            if kind is not str and isinstance(value, bool):
                raise ValueError
            read = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise self._refused(value) from None
        if kind is int and isinstance(value, float) and value != read:
            raise self._refused(value)
        if self.choices and read not in self.choices:
            raise self._refused(value)
        if not isinstance(read, str) and not self.low <= read <= self.high:
            raise self._refused(value)
        return read

    def _refused(self, value: Any) -> UsageError:
        return UsageError(
            f"{self.name} is {str(value)[:40]!r}, expected {self.range}", hint=f"the default is {self.default}"
        )


@dataclass(frozen=True)
class Method:
    """A way to merge. ``merge`` takes n modules of one shape and returns the spectrum of the n merged deltas.

    ``full_rank`` says that the merged delta has no low rank: it can only be written truncated. ``survey`` looks at
    all modules first and returns what ``merge`` then finds in ``batch.survey``. ``needs`` and ``most`` bound the
    number of sources.
    """

    name: str
    family: str
    summary: str
    source: str
    merge: Callable[[Batch, Values], Spectrum]
    parameters: tuple[Parameter, ...] = ()
    full_rank: bool = False
    calibrate: Callable[[Batches, Values], Any] | None = None
    min_sources: int = 1
    max_sources: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The method as it is declared."""
        parameters = [
            {"name": p.name, "type": type(p.default).__name__, "default": p.default, "range": p.range, "about": p.about}
            for p in self.parameters
        ]
        said = {"name": self.name, "family": self.family, "summary": self.summary, "source": self.source}
        return {**said, "full_rank": self.full_rank, "parameters": parameters}

    def values(self, given: Values) -> dict[str, Any]:
        """Every parameter's value: the given one, or its default. Raises UsageError for one it does not have."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                has = ", ".join(known) or "none"
                raise UsageError(
                    f"the method {self.name} has no parameter {name!r}; it has {has}", hint=f"loreg methods {self.name}"
                )
        return {name: parameter.read(given.get(name, parameter.default)) for name, parameter in known.items()}
